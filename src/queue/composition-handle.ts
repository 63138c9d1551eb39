import { type NodeState, resultsByNode, type RunStatus } from "../composition/index.ts";
import { CjmError, fromJobError, type JobError } from "../errors/index.ts";
import type { ActiveRun } from "./composition-runner.ts";
import type { QueueEvent } from "./events.ts";
import type { JobQueue } from "./queue.ts";

/** One node as callers see it. */
export interface NodeView {
  readonly id: string;
  readonly instance: string;
  readonly state: NodeState;
  readonly jobId: string | null;
  readonly error: JobError | null;
  /** States of the items of a `for_each` node. */
  readonly items?: readonly { readonly state: NodeState; readonly jobId: string | null }[];
}

/** A composition as callers see it. */
export interface CompositionView {
  readonly id: string;
  readonly name: string | null;
  readonly status: RunStatus;
  readonly cancelRequested: boolean;
  readonly submittedAt: string;
  readonly completedAt: string | null;
  readonly nodes: readonly NodeView[];
  /** Results of completed nodes by node id. */
  readonly results: Readonly<Record<string, unknown>>;
}

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
  async ended(): Promise<CompositionView> {
    return await this.#queue.waitForComposition(this.id);
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

export function viewOfRun(active: ActiveRun): CompositionView {
  const { run } = active;
  return {
    id: run.id,
    name: run.composition.name ?? null,
    status: active.committed,
    cancelRequested: run.cancelRequested,
    submittedAt: active.submittedAt,
    completedAt: active.completedAt,
    nodes: [...run.nodeRuns.values()].map((node) => ({
      id: node.id,
      instance: run.nodes.get(node.id)?.instance ?? "",
      state: node.state,
      jobId: node.jobId ?? null,
      error: node.error ?? null,
      ...(node.items !== undefined && {
        items: node.items.runs.map(({ state, jobId }) => ({ state, jobId: jobId ?? null })),
      }),
    })),
    results: resultsByNode(run),
  };
}
