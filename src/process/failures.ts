import { CjmError, type ErrorCode, fromJobError, type JobError } from "../errors/index.ts";
import { isRecord } from "../util/record.ts";

/** The code of a failure whose worker sends a category but no code (one of the original). */
const CODE_OF = {
  user_input: "CAPABILITY_INPUT",
  transient: "CAPABILITY_TRANSIENT",
  resource: "CAPABILITY_RESOURCE",
  fatal: "CAPABILITY_ERROR",
} as const satisfies Record<JobError["category"], ErrorCode>;

/** What the original means by a status that comes with a bare `detail`. */
const STATUS_CODES: Readonly<Partial<Record<number, ErrorCode>>> = {
  400: "CONFIG_INVALID",
  404: "METHOD_NOT_SUPPORTED",
  409: "CAPABILITY_CANCELLED",
  422: "CAPABILITY_INPUT",
  501: "METHOD_NOT_SUPPORTED",
};

/** The typed error a worker reported. */
export function failureOf(error: JobError): CjmError {
  if (error.code !== "CAPABILITY_ERROR") return fromJobError(error);
  // How workers of the original end a cancelled stream.
  const isCancel = error.original_exc_repr.startsWith("CapabilityCancelledError");
  const code = isCancel ? "CAPABILITY_CANCELLED" : CODE_OF[error.category];
  return fromJobError({ ...error, code });
}

/** The error of an answer that is no success and holds no typed failure. */
export function refusalOf(status: number, body: unknown, what: string): CjmError {
  if (status === 401) {
    return new CjmError("WORKER_HANDSHAKE", `${what} with status 401: it knows no such token`);
  }
  const detail = isRecord(body) ? body["detail"] : undefined;
  if (typeof detail !== "string") {
    return new CjmError("RESPONSE_INVALID", `${what} with status ${status} and no reason`);
  }
  return new CjmError(STATUS_CODES[status] ?? "CAPABILITY_ERROR", `${what}: ${detail}`);
}
