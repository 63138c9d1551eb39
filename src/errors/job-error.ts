import { compact } from "../util/compact.ts";
import { CjmError, type ResourceShortfall } from "./cjm-error.ts";
import { isErrorCode, type ErrorCategory, type ErrorCode } from "./codes.ts";

/** How much of a failure's stack is recorded. */
export type TracebackPolicy = "full" | "repr_only" | "none";

/** A failure as it crosses the wire and is stored with a job. */
export interface JobError {
  readonly category: ErrorCategory;
  readonly code: string;
  readonly message: string;
  /** Which case of the code it is, as the capability's docs name it: `context_overflow`. */
  readonly reason?: string | null | undefined;
  /** A hint for people; the host decides by category and code. */
  readonly retriable: boolean;
  readonly original_exc_repr: string;
  readonly traceback?: string | null | undefined;
  readonly retry_after_seconds?: number | null | undefined;
  readonly fields_invalid?: readonly string[] | null | undefined;
  readonly resource_shortfall?: ResourceShortfall | null | undefined;
  readonly capability_name?: string | null | undefined;
  readonly capability_instance_id?: string | null | undefined;
  readonly occurred_at?: string | null | undefined;
}

export interface JobErrorContext {
  readonly capabilityName?: string;
  readonly capabilityInstanceId?: string;
  /** @default "full" */
  readonly tracebackPolicy?: TracebackPolicy;
  /** @default now */
  readonly occurredAt?: Date;
}

/** What `details.reason` is sent as: a word to branch on, never text for people. */
const REASON = /^[a-z][a-z0-9_]{0,63}$/u;
const USER_INPUT_ERRNO = new Set(["ENOENT", "EACCES", "ENOTDIR", "EISDIR"]);
const TRANSIENT_ERRNO = new Set(["EPIPE", "ETIMEDOUT", "EAGAIN", "EINTR", "EBUSY"]);
const RESOURCE_ERRNO = new Set(["ENOSPC", "ENOMEM", "EDQUOT"]);
const OUT_OF_MEMORY = /out of memory|heap limit|Array buffer allocation failed|std::bad_alloc/iu;

/** What was thrown as an Error; anything else becomes the message of one. */
export function toError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** Converts anything that was thrown into the form that is stored and sent. */
export function toJobError(thrown: unknown, context: JobErrorContext = {}): JobError {
  const error = toError(thrown);
  const { code, category } = classify(error);
  const policy = context.tracebackPolicy ?? "full";
  return compact({
    category,
    code,
    message: error.message,
    retriable: category === "transient" && code !== "CAPABILITY_CANCELLED",
    original_exc_repr: policy === "none" ? error.name : `${error.name}: ${error.message}`,
    traceback: policy === "full" ? fullStack(error) : undefined,
    ...sideChannel(error),
    capability_name: context.capabilityName,
    capability_instance_id: context.capabilityInstanceId,
    occurred_at: (context.occurredAt ?? new Date()).toISOString(),
  });
}

function sideChannel(error: Error): Partial<JobError> {
  if (!(error instanceof CjmError)) return {};
  const { reason } = error.details;
  return {
    reason: typeof reason === "string" && REASON.test(reason) ? reason : undefined,
    retry_after_seconds: error.retryAfterSeconds,
    fields_invalid: error.fieldsInvalid.length > 0 ? error.fieldsInvalid : undefined,
    resource_shortfall: error.resourceShortfall,
  };
}

/** The error a caller of the host sees for a failure that came over the wire or from the store. */
export function fromJobError(wire: JobError): CjmError {
  const code: ErrorCode = isErrorCode(wire.code) ? wire.code : "CAPABILITY_ERROR";
  return new CjmError(
    code,
    wire.message,
    compact({
      category: wire.category,
      details: { jobError: wire, ...(typeof wire.reason === "string" && { reason: wire.reason }) },
      fieldsInvalid: wire.fields_invalid ?? undefined,
      retryAfterSeconds: wire.retry_after_seconds ?? undefined,
      resourceShortfall: wire.resource_shortfall ?? undefined,
    }),
  );
}

function fullStack(error: Error): string {
  const own = error.stack ?? "";
  return error.cause instanceof Error ? `${own}\nCaused by: ${fullStack(error.cause)}` : own;
}

function classify(error: Error): { code: string; category: ErrorCategory } {
  if (error instanceof CjmError) return { code: error.code, category: error.category };
  if (error.name === "AbortError") {
    return { code: "CAPABILITY_CANCELLED", category: "transient" };
  }
  if (error.name === "TimeoutError") return { code: "CAPABILITY_TIMEOUT", category: "transient" };
  return classifyBare(error, errnoOf(error));
}

function errnoOf(error: Error): string {
  return "code" in error && typeof error.code === "string" ? error.code : "";
}

function classifyBare(error: Error, errno: string): { code: string; category: ErrorCategory } {
  if (RESOURCE_ERRNO.has(errno) || OUT_OF_MEMORY.test(error.message)) {
    return { code: "CAPABILITY_RESOURCE", category: "resource" };
  }
  if (USER_INPUT_ERRNO.has(errno) || isArgumentError(error)) {
    return { code: "CAPABILITY_INPUT", category: "user_input" };
  }
  if (TRANSIENT_ERRNO.has(errno) || errno.startsWith("ECONN") || errno.startsWith("UND_ERR_")) {
    return { code: "CAPABILITY_TRANSIENT", category: "transient" };
  }
  return { code: "CAPABILITY_ERROR", category: "fatal" };
}

/** Node marks its own argument errors `ERR_INVALID_…`; other TypeErrors are bugs of the tool. */
function isArgumentError(error: Error): boolean {
  if (error.name === "ZodError" || error.name === "$ZodError") return true;
  const isTypeOrRange = error instanceof TypeError || error instanceof RangeError;
  const errno = errnoOf(error);
  return isTypeOrRange && (errno.startsWith("ERR_INVALID_") || errno === "ERR_OUT_OF_RANGE");
}
