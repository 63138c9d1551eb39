import { compact } from "../util/compact.ts";
import { selectAction } from "./actions.ts";
import { type FailureStatus, toFailure } from "./failure.ts";
import { jsonText } from "./json-text.ts";
import { parseRequest } from "./requests.ts";
import type { OnLeft, RunningCall } from "./running-call.ts";
import type { WorkerRuntime } from "./runtime.ts";

/** A request for a call, whatever carried it. */
export interface CallRequest {
  readonly body: unknown;
  readonly onLeft: OnLeft;
}

/** The answer of a call: JSON text and its status. */
export interface CallAnswer {
  readonly status: 200 | FailureStatus;
  readonly text: string;
}

/** @throws {CjmError} for a request that becomes no call; a call that fails is an answer. */
export async function executeCall(
  runtime: WorkerRuntime,
  { body, onLeft }: CallRequest,
): Promise<CallAnswer> {
  const request = await parseRequest("/execute", body, (wire) => wire.executeRequestSchema);
  const selected = selectAction(runtime.capability, request);
  const call = runtime.begin(request.envelope, onLeft);
  return answer(runtime, { call, run: () => runtime.run(call, selected) });
}

/**
 * A typed task call; the worker accounts for each one itself.
 *
 * @throws as {@link executeCall}.
 */
export async function taskCall(
  runtime: WorkerRuntime,
  { body, onLeft }: CallRequest,
): Promise<CallAnswer> {
  const request = await parseRequest("/task", body, (wire) => wire.taskRequestSchema);
  const method = runtime.taskMethod(request.task, request.method);
  const call = runtime.begin(request.envelope, onLeft);
  const startedAt = performance.now();
  const account = (errorCategory?: string): void => {
    const payload = compact({
      task: request.task,
      method: request.method,
      ok: errorCategory === undefined,
      duration_s: (performance.now() - startedAt) / 1000,
      error_category: errorCategory,
    });
    call.account("task_account", payload);
  };
  const name = `${request.task}.${request.method}`;
  return answer(runtime, {
    call,
    run: () => runtime.runUnary(call, { name, action: method, input: request.kwargs }),
    account,
  });
}

/** A stream that has begun: its input is right. */
export interface BegunStream {
  readonly call: RunningCall;
  readonly chunks: AsyncIterator<unknown, undefined>;
}

/** @throws as {@link executeCall}, and for wrong input. */
export async function beginStream(
  runtime: WorkerRuntime,
  { body, onLeft }: CallRequest,
): Promise<BegunStream> {
  const request = await parseRequest("/execute_stream", body, (wire) => wire.executeRequestSchema);
  const selected = selectAction(runtime.capability, request);
  const call = runtime.begin(request.envelope, onLeft);
  try {
    return { call, chunks: await runtime.stream(call, selected) };
  } catch (error) {
    await runtime.end(call);
    throw error;
  }
}

interface Answered {
  readonly call: RunningCall;
  readonly run: () => Promise<unknown>;
  readonly account?: (errorCategory?: string) => void;
}

async function answer(
  runtime: WorkerRuntime,
  { call, run, account }: Answered,
): Promise<CallAnswer> {
  try {
    const text = jsonText(await run());
    account?.();
    await runtime.end(call);
    return { status: 200, text };
  } catch (error) {
    const { status, body } = toFailure(error, { capabilityName: runtime.capability.name, call });
    account?.(body._job_error.category);
    await runtime.end(call);
    return { status, text: JSON.stringify(body) };
  }
}
