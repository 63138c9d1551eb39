import { CjmError } from "cjm-substrate/worker";

/** The words of `details.reason`; docs/text-generation.md says what each means. */
export type Reason =
  | "adapter_hash"
  | "adapter_id_taken"
  | "adapter_invalid"
  | "adapter_mismatch"
  | "adapter_missing"
  | "adapter_unknown"
  | "chat_template_missing"
  | "context_overflow"
  | "download_failed"
  | "download_hash"
  | "endpoint_off"
  | "grammar_invalid"
  | "model_invalid"
  | "model_missing"
  | "model_unsupported"
  | "parameter_unsupported"
  | "registry_invalid"
  | "registry_missing";

/** A refusal of what the caller gave: `CAPABILITY_INPUT` with `details.reason`. */
export function refuse(
  reason: Reason,
  message: string,
  options: {
    readonly fields?: readonly string[];
    readonly cause?: unknown;
    readonly details?: Readonly<Record<string, unknown>>;
  } = {},
): CjmError {
  return new CjmError("CAPABILITY_INPUT", worded(message, reason), {
    cause: options.cause,
    fieldsInvalid: options.fields ?? [],
    details: { reason, ...options.details },
  });
}

/** The readers of files speak of models; where the file is an adapter's, so is the fault. */
export function asAdapterFault(path: string, error: unknown): unknown {
  if (["ENOENT", "ENOTDIR", "EACCES"].includes(errnoOf(error))) {
    return refuse("adapter_missing", `${path} cannot be read: ${errnoOf(error)}`, { cause: error });
  }
  if (!(error instanceof CjmError)) return error;
  const { reason } = error.details;
  const own = reason === "model_missing" ? "adapter_missing" : "adapter_invalid";
  if (reason !== "model_missing" && reason !== "model_invalid") return error;
  return refuse(own, error.message.replace(`${reason}: `, ""), { cause: error });
}

/** A message as people read it: the word that programs branch on comes first. */
export function worded(message: string, reason: string): string {
  return `${reason}: ${message}`;
}

/** What an engine cannot do at all. */
export function unsupported(what: string, engine: string): CjmError {
  return new CjmError("METHOD_NOT_SUPPORTED", `Engine ${engine} has no ${what}`, {
    details: { reason: "method_unsupported", engine },
  });
}

export function engineMissing(message: string, cause: unknown): CjmError {
  return new CjmError("SETUP_REQUIRED", worded(message, "engine_missing"), {
    cause,
    details: { reason: "engine_missing" },
  });
}

/** The system's code of a failed file operation, such as `ENOENT`; empty for another error. */
export function errnoOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : "";
}
