import { fileURLToPath } from "node:url";
import { WorkerUnderTest } from "../../conformance/worker-under-test.ts";
import { CallFailed, type TextClient } from "../../support/text-generation.ts";
import type { StreamChunk } from "../../../workers/inference/task/schemas.ts";
import type { JobError } from "../../../src/errors/index.ts";
import { pythonOf } from "../support/environment.ts";

const NAME = "inference-transformers";
type Kwargs = Readonly<Record<string, unknown>>;

/** The installed worker in a process of its own, spoken to as a host does. */
export interface PythonSite extends AsyncDisposable {
  readonly client: TextClient;
  readonly worker: WorkerUnderTest;
}

export async function openPythonSite(config: Kwargs): Promise<PythonSite> {
  const main = fileURLToPath(new URL(`../../../workers/${NAME}/main.py`, import.meta.url));
  const worker = await WorkerUnderTest.start(
    { name: NAME, command: [await pythonOf(NAME), "-W", "ignore", main] },
    { initialize: false, env: { PYTHONDONTWRITEBYTECODE: "1", OMP_NUM_THREADS: "1" } },
  );
  const client = clientOf(worker);
  await client.post("/initialize", config);
  await client.post("/prefetch", {});
  return { client, worker, [Symbol.asyncDispose]: () => worker[Symbol.asyncDispose]() };
}

function clientOf(worker: WorkerUnderTest): TextClient {
  let calls = 0;
  const send = async (path: string, body: unknown, signal?: AbortSignal): Promise<string> => {
    let text = "";
    for await (const part of parts(worker, path, body, signal)) text += part;
    return text;
  };
  const post = async (path: string, body: unknown, signal?: AbortSignal): Promise<unknown> =>
    JSON.parse(await send(path, body, signal)) as unknown;
  const called = (action: string, kwargs: Kwargs): unknown =>
    worker.callBody(action, kwargs, { job_id: `job-${(calls += 1)}` });
  return {
    post,
    call: (action, kwargs, signal) => post("/execute", called(action, kwargs), signal),
    task: (method, kwargs) => post("/task", { task: "text-generation", method, kwargs }),
    async *stream(kwargs, signal) {
      let rest = "";
      for await (const part of parts(worker, "/execute_stream", called("stream", kwargs), signal)) {
        const lines = (rest + part).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) yield chunkOf(line);
      }
    },
  };
}

function chunkOf(line: string): StreamChunk {
  const chunk = JSON.parse(line) as StreamChunk | { readonly _job_error: JobError };
  if ("_job_error" in chunk) throw new CallFailed(200, chunk._job_error);
  return chunk;
}

/** The answer as it comes; leaving early closes the connection, as an abort does. */
async function* parts(
  worker: WorkerUnderTest,
  path: string,
  body: unknown,
  signal?: AbortSignal,
): AsyncGenerator<string, void, void> {
  const { request, response } = worker.begin("POST", path, body);
  const leave = (): void => void request.destroy(new Error("the caller left"));
  signal?.addEventListener("abort", leave, { once: true });
  try {
    const message = await response;
    message.setEncoding("utf8");
    if (message.statusCode !== 200) {
      let text = "";
      for await (const part of message) text += String(part);
      const { _job_error } = JSON.parse(text) as { readonly _job_error: JobError };
      throw new CallFailed(message.statusCode ?? 0, _job_error);
    }
    for await (const part of message) yield String(part);
  } finally {
    signal?.removeEventListener("abort", leave);
    request.destroy();
  }
}
