import {
  allTerminal,
  cancelPending,
  type Composition,
  type CompositionNode,
  type CompositionRun,
  deriveTerminalStatus,
  evaluateWhen,
  newRun,
  type NodeOutcome,
  recordResult,
  recordSkipped,
  recordStarted,
  requireNode,
  resolveKwargs,
  resultsByNode,
  scopeOf,
} from "../composition/index.ts";
import { CjmError, fromJobError, type JobError, toJobError } from "../errors/index.ts";
import { type NodeRecord, type StorePort, WHOLE_NODE } from "../store/index.ts";
import { newId } from "../util/ids.ts";
import { CompositionHandle, type CompositionView, viewOfRun } from "./composition-handle.ts";
import type { Executor } from "./executor.ts";
import type { JobEntry } from "./job.ts";
import { provenanceOf } from "./provenance.ts";
import type { JobQueue } from "./queue.ts";
import { ForEachMembers } from "./for-each-members.ts";
import type { Unit } from "./unit.ts";

/** A composition this host runs. */
export interface ActiveRun {
  readonly run: CompositionRun;
  readonly submittedAt: string;
  completedAt: string | null;
  /** Status that is committed; `run.status` may be ahead of it. */
  committed: CompositionRun["status"];
  readonly done: PromiseWithResolvers<void>;
}

/** Advances compositions: member jobs are made when their inputs exist. */
export class CompositionRunner {
  readonly #queue: JobQueue;
  readonly #store: StorePort;
  readonly #executor: Executor;
  readonly #active = new Map<string, ActiveRun>();

  constructor(queue: JobQueue, store: StorePort, executor: Executor) {
    this.#queue = queue;
    this.#store = store;
    this.#executor = executor;
    queue.loop.onMemberEnded((entry, unit) => {
      this.#memberEnded(entry, unit);
    });
  }
}
