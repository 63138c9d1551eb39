import type { Context } from "hono";
import { readJsonBody, type WorkerBindings } from "./body.ts";
import { beginStream, type CallAnswer, type CallRequest, executeCall, taskCall } from "./calls.ts";
import { chunkStream } from "./chunk-stream.ts";
import { parseRequest } from "./requests.ts";
import type { OnLeft } from "./running-call.ts";
import type { WorkerRuntime } from "./runtime.ts";

type CallContext = Context<WorkerBindings>;

const JSON_HEADERS = { "content-type": "application/json" } as const;

export async function execute(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  return reply(c, await executeCall(runtime, await callRequest(c)));
}

export async function task(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  return reply(c, await taskCall(runtime, await callRequest(c)));
}

/** Wrong input is refused with its status; a failure afterwards is the last line. */
export async function executeStream(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  const { call, chunks } = await beginStream(runtime, await callRequest(c));
  const stream = chunkStream(runtime, call, chunks);
  return c.body(stream, 200, { "content-type": "application/x-ndjson" });
}

export async function cancel(c: CallContext, runtime: WorkerRuntime): Promise<Response> {
  const { job_id } = await parseRequest(
    "/cancel",
    await readJsonBody(c),
    (wire) => wire.cancelRequestSchema,
  );
  return c.json({ status: "cancelled", calls: runtime.cancel(job_id) });
}

async function callRequest(c: CallContext): Promise<CallRequest> {
  return { body: await readJsonBody(c), onLeft: onAbort(c.req.raw.signal) };
}

function onAbort(signal: AbortSignal): OnLeft {
  return (left) => {
    if (signal.aborted) left();
    else signal.addEventListener("abort", left, { once: true });
  };
}

function reply(c: CallContext, { status, text }: CallAnswer): Response {
  return c.body(text, status, JSON_HEADERS);
}
