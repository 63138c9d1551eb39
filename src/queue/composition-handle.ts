import { CjmError, fromJobError } from "../errors/index.ts";
import type { CompositionView } from "./composition-view.ts";
import type { QueueEvent } from "./events.ts";
import type { JobQueue } from "./queue.ts";

/** A submitted composition. */
export class CompositionHandle {
  readonly id: string;
  readonly #queue: JobQueue;

  constructor(queue: JobQueue, id: string) {
    this.#queue = queue;
    this.id = id;
  }

  /** Everything that happens to its nodes, from the beginning; ends with the composition. */
  events(afterSeq = 0): AsyncGenerator<QueueEvent> {
    return this.#queue.eventsForComposition(this.id, afterSeq);
  }

  /** The composition when it is over, however it ended. */
  async ended(signal?: AbortSignal): Promise<CompositionView> {
    return await this.#queue.waitForComposition(this.id, signal);
  }

  /** @throws the error of its first failed node, or `CAPABILITY_CANCELLED`. */
  async result(): Promise<CompositionView> {
    const view = await this.ended();
    if (view.status === "completed") return view;
    const error = view.nodes.find((node) => node.state === "failed")?.error;
    throw error == null
      ? new CjmError("CAPABILITY_CANCELLED", `Composition ${this.id} was ${view.status}`)
      : fromJobError(error);
  }

  async cancel(): Promise<boolean> {
    return await this.#queue.cancelComposition(this.id);
  }
}
