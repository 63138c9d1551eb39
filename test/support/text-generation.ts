import { createWorkerApp, type Capability, type WorkerApp } from "cjm-substrate/worker";
import type { JobError } from "../../src/errors/index.ts";
import {
  generationSchema,
  type Generation,
  type StreamChunk,
} from "../../workers/inference/task/schemas.ts";

/** A failed call, as it crosses the wire. */
export class CallFailed extends Error {
  readonly status: number;
  readonly error: JobError;

  constructor(status: number, error: JobError) {
    super(error.message);
    this.status = status;
    this.error = error;
  }
}

type Kwargs = Readonly<Record<string, unknown>>;

/** Calls a worker that serves task `text-generation`, by whatever way it is reached. */
export interface TextClient {
  call(action: string, kwargs: Kwargs, signal?: AbortSignal): Promise<unknown>;
  task(method: string, kwargs: Kwargs): Promise<unknown>;
  stream(kwargs: Kwargs, signal?: AbortSignal): AsyncGenerator<StreamChunk, void, void>;
  post(path: string, body: unknown): Promise<unknown>;
}

export async function generateWith(
  client: TextClient,
  kwargs: Kwargs,
  signal?: AbortSignal,
): Promise<Generation> {
  return generationSchema.parse(await client.call("generate", kwargs, signal));
}

/** A worker in this process behind its whole HTTP surface. */
export function inProcess(
  capability: Capability,
  folders: { readonly data: string; readonly output: string },
): TextClient {
  const app: WorkerApp = createWorkerApp(capability, { dataFolder: folders.data });
  let calls = 0;
  const envelope = (): Kwargs => ({ job_id: `job-${(calls += 1)}`, output_folder: folders.output });
  const request = async (path: string, body: unknown, signal?: AbortSignal): Promise<Response> => {
    const response = await app.request(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      ...(signal === undefined ? {} : { signal }),
    });
    if (response.ok) return response;
    throw failed(response.status, await response.json());
  };
  const post = async (path: string, body: unknown, signal?: AbortSignal): Promise<unknown> =>
    await (await request(path, body, signal)).json();
  return {
    post,
    call: (action, kwargs, signal) =>
      post("/execute", { kwargs: { action, ...kwargs }, envelope: envelope() }, signal),
    task: (method, kwargs) =>
      post("/task", { task: "text-generation", method, kwargs, envelope: envelope() }),
    async *stream(kwargs, signal) {
      const body = { kwargs: { action: "stream", ...kwargs }, envelope: envelope() };
      const response = await request("/execute_stream", body, signal);
      for await (const line of lines(response)) {
        const chunk = JSON.parse(line) as StreamChunk | { _job_error: JobError };
        if ("_job_error" in chunk) throw failed(200, chunk);
        yield chunk;
      }
    },
  };
}

function failed(status: number, body: unknown): CallFailed {
  return new CallFailed(status, (body as { _job_error: JobError })._job_error);
}

async function* lines(response: Response): AsyncGenerator<string, void, void> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const part of response.body ?? []) {
    rest += decoder.decode(part as Uint8Array, { stream: true });
    const found = rest.split("\n");
    rest = found.pop() ?? "";
    yield* found.filter((line) => line !== "");
  }
}

/** The error of a call that must fail. */
export async function errorOf(call: Promise<unknown>): Promise<JobError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof CallFailed) return error.error;
    throw error;
  }
  throw new Error("the call did not fail");
}
