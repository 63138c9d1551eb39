import {
  createWorkerApp,
  defineAction,
  defineCapability,
  z,
  type Action,
  type Call,
  type Capability,
  type WorkerApp,
} from "cjm-substrate/worker";
import type { JobError } from "../../../src/errors/index.ts";
import type { WorkerFrameInput } from "../../../src/protocol/index.ts";

export const nothing = z.strictObject({});

/** An action that takes nothing, gives anything, and does what `handler` does. */
export function act(handler: (call: Call) => unknown): Action {
  return defineAction({ input: nothing, output: z.unknown(), handler: (_, call) => handler(call) });
}

export interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly error: JobError | undefined;
}

/** A worker in process, and every frame it sent. */
export interface TestWorker {
  readonly app: WorkerApp;
  readonly frames: WorkerFrameInput[];
  of<Type extends WorkerFrameInput["type"]>(
    type: Type,
  ): Extract<WorkerFrameInput, { type: Type }>[];
  post(path: string, body?: unknown, signal?: AbortSignal): Promise<Answer>;
  get(path: string): Promise<Answer>;
}

export function startWorker(capability: Capability): TestWorker {
  const frames: WorkerFrameInput[] = [];
  const app = createWorkerApp(capability, { sink: { send: (frame) => void frames.push(frame) } });
  const ask = async (path: string, init: RequestInit): Promise<Answer> => {
    const response = await app.request(path, init);
    const body: unknown = await response.json();
    return {
      status: response.status,
      body,
      error: (body as { _job_error?: JobError } | null)?._job_error,
    };
  };
  return {
    app,
    frames,
    of: (type) => frames.filter((frame) => frame.type === type) as never,
    post: (path, body = {}, signal) =>
      ask(path, {
        method: "POST",
        body: JSON.stringify(body),
        ...(signal !== undefined && { signal }),
      }),
    get: (path) => ask(path, {}),
  };
}

/** A capability of these parts, initialized. */
export async function startTool(parts: Partial<Capability>): Promise<TestWorker> {
  const worker = startWorker(
    defineCapability({ name: "tool", version: "1.2.3", config: nothing, actions: {}, ...parts }),
  );
  await worker.post("/initialize");
  return worker;
}
