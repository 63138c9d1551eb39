/** Codes of the substrate that a merge can fail with. */
export type FaultCode =
  | "CAPABILITY_CANCELLED"
  | "CAPABILITY_ERROR"
  | "CAPABILITY_INPUT"
  | "CAPABILITY_RESOURCE"
  | "FILE_INVALID";

/** A failure in the form in which it crosses from a thread to the main thread. */
export interface FaultData {
  readonly code: FaultCode;
  readonly reason: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>>;
}

/**
 * A failure of a merge, thrown on purpose.
 *
 * Threads cannot import the SDK (they run beside it, not in it), so this class is what they throw;
 * the capability turns it into a `CjmError` with the same code. Branch on `reason`.
 */
export class MergeFault extends Error {
  override readonly name = "MergeFault";
  readonly code: FaultCode;
  readonly reason: string;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(
    code: FaultCode,
    reason: string,
    message: string,
    details: Readonly<Record<string, unknown>> = {},
  ) {
    super(message);
    this.code = code;
    this.reason = reason;
    this.details = details;
  }
}

const NO_SPACE = new Set(["ENOSPC", "EDQUOT", "EFBIG"]);

/** The failure that a system error means; anything unknown is a fault of this tool. */
export function toFaultData(thrown: unknown): FaultData {
  if (thrown instanceof MergeFault) {
    const { code, reason, message, details } = thrown;
    return { code, reason, message, details };
  }
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const errno = "code" in error && typeof error.code === "string" ? error.code : "";
  if (NO_SPACE.has(errno)) {
    return { code: "CAPABILITY_RESOURCE", reason: "disk_full", message: error.message, details: {} };
  }
  if (errno === "ENOENT" || errno === "EACCES" || errno === "ENOTDIR" || errno === "EISDIR") {
    return { code: "CAPABILITY_INPUT", reason: "path", message: error.message, details: {} };
  }
  if (/allocation failed|could not allocate|out of memory/iu.test(error.message)) {
    return { code: "CAPABILITY_RESOURCE", reason: "memory", message: error.message, details: {} };
  }
  const details = { stack: error.stack ?? "" };
  return { code: "CAPABILITY_ERROR", reason: "internal", message: error.message, details };
}

export function faultFrom(data: FaultData): MergeFault {
  return new MergeFault(data.code, data.reason, data.message, data.details);
}
