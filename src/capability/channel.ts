import { z } from "zod";
import type { WorkerConnection } from "../process/index.ts";
import { type EnvelopeInput, statusReplySchema } from "../protocol/index.ts";
import type { CallTarget } from "../queue/executor.ts";
import type { ActiveCall } from "./active-calls.ts";

/** One call as it goes to a worker. */
export interface WorkerCall {
  readonly target: CallTarget;
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly envelope: EnvelopeInput & { readonly job_id: string };
}

/** How calls reach a worker: of our own SDKs, or of the original. */
export interface CallChannel {
  send(call: WorkerCall, active: ActiveCall): Promise<unknown>;
  stream(call: WorkerCall, active: ActiveCall): AsyncIterable<unknown>;
  /** Asks the worker to end the call. */
  cancel(jobId: string): Promise<void>;
}

/** A worker of our SDKs: what it reports of a call comes on the control stream. */
export class OwnChannel implements CallChannel {
  readonly #connection: WorkerConnection;

  constructor(connection: WorkerConnection) {
    this.#connection = connection;
  }

  async send(call: WorkerCall): Promise<unknown> {
    const { path, body } = requestOf(call);
    return (await this.#connection.post(path, body, z.unknown())).value;
  }

  stream(call: WorkerCall): AsyncIterable<unknown> {
    return this.#connection.stream("/execute_stream", requestOf(call).body);
  }

  async cancel(jobId: string): Promise<void> {
    await this.#connection.post("/cancel", { job_id: jobId }, statusReplySchema);
  }
}

/** The endpoint a call goes to and its body. */
export function requestOf({ target, kwargs, envelope }: WorkerCall): {
  readonly path: "/execute" | "/task";
  readonly body: unknown;
} {
  const { task, method, action } = target;
  if (task !== undefined) return { path: "/task", body: { task, method, kwargs, envelope } };
  const named = action === undefined ? kwargs : { ...kwargs, action };
  return { path: "/execute", body: { args: [], kwargs: named, envelope } };
}
