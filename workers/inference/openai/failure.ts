import { CjmError } from "cjm-substrate/worker";
import { worded } from "../fault.ts";

/** `details.reason` of the errors of this backend, and the code each one has. */
const REASONS = {
  parameter_unsupported: "CAPABILITY_INPUT",
  context_overflow: "CAPABILITY_INPUT",
  grammar_invalid: "CAPABILITY_INPUT",
  chat_template_missing: "CAPABILITY_INPUT",
  adapter_unknown: "CAPABILITY_INPUT",
  adapter_mismatch: "CAPABILITY_INPUT",
  model_missing: "CAPABILITY_INPUT",
  input_refused: "CAPABILITY_INPUT",
  key_refused: "SECRET_INVALID",
  method_unsupported: "METHOD_NOT_SUPPORTED",
  engine_missing: "SETUP_REQUIRED",
  memory: "CAPABILITY_RESOURCE",
  server_down: "CAPABILITY_TRANSIENT",
  server_busy: "CAPABILITY_TRANSIENT",
  server_aborted: "CAPABILITY_TRANSIENT",
  engine_crashed: "CAPABILITY_TRANSIENT",
  server_hangs: "CAPABILITY_TIMEOUT",
  server_lied: "CAPABILITY_ERROR",
  server_error: "CAPABILITY_ERROR",
  response_too_large: "CAPABILITY_ERROR",
} as const;
export type Reason = keyof typeof REASONS;

export interface FailureOptions {
  readonly cause?: unknown;
  /** Inputs at fault, by name. */
  readonly fields?: readonly string[];
  readonly retryAfterSeconds?: number;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** An error of this backend: code by reason, and the reason in `details.reason`. */
export function failure(reason: Reason, message: string, options: FailureOptions = {}): CjmError {
  return new CjmError(REASONS[reason], worded(message, reason), {
    details: { reason, ...options.details },
    ...(options.cause === undefined ? {} : { cause: options.cause }),
    ...(options.fields === undefined ? {} : { fieldsInvalid: options.fields }),
    ...(options.retryAfterSeconds === undefined
      ? {}
      : { retryAfterSeconds: options.retryAfterSeconds }),
  });
}

export function reasonOf(error: unknown): string | undefined {
  const reason = error instanceof CjmError ? error.details["reason"] : undefined;
  return typeof reason === "string" ? reason : undefined;
}

/** Cuts what a server said to a length that fits into a message, on one line. */
export function quote(text: string, limit = 300): string {
  const line = text.replaceAll(/\s+/gu, " ").trim();
  return line.length <= limit ? line : `${line.slice(0, limit)}… (${line.length} characters)`;
}
