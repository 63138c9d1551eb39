import { CjmError, toJobError, type JobError } from "../errors/index.ts";
import type { RunningCall } from "./running-call.ts";

export interface Failure {
  readonly status: FailureStatus;
  readonly body: { readonly _job_error: JobError };
}
export type FailureStatus = 400 | 404 | 409 | 413 | 500;

const STATUS: Readonly<Record<string, FailureStatus>> = {
  ACTION_UNKNOWN: 404,
  METHOD_NOT_SUPPORTED: 404,
  CAPABILITY_CANCELLED: 409,
  REQUEST_TOO_LARGE: 413,
};

/** Anything thrown as the answer the host gets. */
export function toFailure(
  thrown: unknown,
  context: { readonly capabilityName: string; readonly call?: RunningCall | undefined },
): Failure {
  const { call, capabilityName } = context;
  const instanceId = call?.envelope.capability_instance_id;
  const error = toJobError(call === undefined ? thrown : duringCall(thrown, call.signal), {
    capabilityName,
    ...(typeof instanceId === "string" && { capabilityInstanceId: instanceId }),
  });
  const status = STATUS[error.code] ?? (error.category === "user_input" ? 400 : 500);
  return { status, body: { _job_error: error } };
}

/** The answer to a request that became no call; life-cycle endpoints of the original answer so. */
export function refusalAnswer(
  { name }: { readonly name: string },
  error: unknown,
): { readonly status: FailureStatus; readonly body: Readonly<Record<string, unknown>> } {
  const { status, body } = toFailure(error, { capabilityName: name });
  return { status, body: { status: "error", detail: body._job_error.message, ...body } };
}

/** Whatever an aborted call throws, it failed for the reason of its abort. */
function duringCall(thrown: unknown, signal: AbortSignal): unknown {
  if (signal.aborted && signal.reason instanceof CjmError) {
    return new CjmError(signal.reason.code, signal.reason.message, { cause: thrown });
  }
  if (thrown instanceof Error && thrown.name === "AbortError") {
    // Aborted by the tool itself; "cancelled" would tell the host that its cancel had worked.
    return new CjmError("CAPABILITY_TRANSIENT", thrown.message, { cause: thrown });
  }
  return thrown;
}
