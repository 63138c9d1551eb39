import { CjmError } from "../errors/index.ts";
import type { ChunkChannel } from "./chunk-channel.ts";
import type { QueueEvent } from "./events.ts";
import type { JobView } from "./job.ts";
import type { JobQueue } from "./queue.ts";

/** A submitted job. A streaming one is read by iterating over it, once. */
export class JobHandle implements AsyncIterable<unknown> {
  readonly id: string;
  readonly #queue: JobQueue;
  readonly #chunks: ChunkChannel | null;

  constructor(queue: JobQueue, id: string, chunks: ChunkChannel | null) {
    this.#queue = queue;
    this.id = id;
    this.#chunks = chunks;
  }

  /** @throws the job's own error if it failed, `CAPABILITY_CANCELLED` if it was cancelled. */
  async result(): Promise<unknown> {
    return await this.#queue.resultOf(this.id);
  }

  /** The job when it is over, however it ended. */
  async ended(): Promise<JobView> {
    return await this.#queue.waitForJob(this.id);
  }

  async cancel(): Promise<boolean> {
    return await this.#queue.cancel(this.id);
  }

  events(afterSeq = 0): AsyncGenerator<QueueEvent> {
    return this.#queue.events(this.id, afterSeq);
  }

  /**
   * The chunks of a streaming job; leaving the loop early cancels it.
   *
   * @throws the job's own error; `METHOD_NOT_SUPPORTED` if it was not submitted as a stream.
   */
  async *[Symbol.asyncIterator](): AsyncGenerator {
    if (this.#chunks === null) {
      const message = `Job ${this.id} is no stream: submit it with submitStream, or wait for its result`;
      throw new CjmError("METHOD_NOT_SUPPORTED", message);
    }
    let isRead = false;
    try {
      yield* this.#chunks.read();
      isRead = true;
    } finally {
      // In this order: a worker that waits for its reader must not run on before it is told to stop.
      if (!isRead) await this.cancel();
      this.#chunks.close();
    }
    await this.result();
  }
}
