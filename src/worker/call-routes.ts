import type { Context } from "hono";
import { compact } from "../util/compact.ts";
import { selectAction } from "./actions.ts";
import { readJsonBody, type WorkerBindings } from "./body.ts";
import { toFailure } from "./failure.ts";
import { chunkStream } from "./chunk-stream.ts";
import { jsonText } from "./json-text.ts";
import { parseRequest } from "./requests.ts";
import type { RunningCall } from "./running-call.ts";
import type { WorkerRuntime } from "./runtime.ts";

type CallContext = Context<WorkerBindings>;

const JSON_HEADERS = { "content-type": "application/json" } as const;

export async function execute(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  const request = await parseRequest(
    "/execute",
    await readJsonBody(c),
    (wire) => wire.executeRequestSchema,
  );
  const selected = selectAction(runtime.capability, request);
  const call = runtime.begin(request.envelope, c.req.raw.signal);
  return answer(c, runtime, { call, run: () => runtime.run(call, selected) });
}

/** A typed task call; the worker accounts for each one itself. */
export async function task(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  const request = await parseRequest(
    "/task",
    await readJsonBody(c),
    (wire) => wire.taskRequestSchema,
  );
  const method = runtime.taskMethod(request.task, request.method);
  const call = runtime.begin(request.envelope, c.req.raw.signal);
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
  return answer(c, runtime, {
    call,
    run: () => runtime.runUnary(call, { name, action: method, input: request.kwargs }),
    account,
  });
}

interface Answered {
  readonly call: RunningCall;
  readonly run: () => Promise<unknown>;
  readonly account?: (errorCategory?: string) => void;
}

async function answer(
  c: CallContext,
  runtime: WorkerRuntime,
  { call, run, account }: Answered,
): Promise<Response> {
  try {
    const text = jsonText(await run());
    account?.();
    await runtime.end(call);
    return c.body(text, 200, JSON_HEADERS);
  } catch (error) {
    const { status, body } = toFailure(error, { capabilityName: runtime.capability.name, call });
    account?.(body._job_error.category);
    await runtime.end(call);
    return c.json(body, status);
  }
}

/** Wrong input is refused with its status; a failure afterwards is the last line. */
export async function executeStream(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  const request = await parseRequest(
    "/execute_stream",
    await readJsonBody(c),
    (wire) => wire.executeRequestSchema,
  );
  const selected = selectAction(runtime.capability, request);
  const call = runtime.begin(request.envelope, c.req.raw.signal);
  try {
    const chunks = await runtime.stream(call, selected);
    const stream = chunkStream(runtime, call, chunks);
    return c.body(stream, 200, { "content-type": "application/x-ndjson" });
  } catch (error) {
    await runtime.end(call);
    throw error;
  }
}

export async function cancel(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  const { job_id } = await parseRequest(
    "/cancel",
    await readJsonBody(c),
    (wire) => wire.cancelRequestSchema,
  );
  return c.json({ status: "cancelled", calls: runtime.cancel(job_id) });
}
