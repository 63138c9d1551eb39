import {
  type CompositionNode,
  type CompositionRun,
  type NodeOutcome,
  requireNode,
} from "../composition/index.ts";
import { toJobError } from "../errors/index.ts";
import type { CacheEntry, StoredValue } from "../store/index.ts";
import { isTerminal, type JobEntry } from "./job.ts";

/** A composition that this host runs or has run. */
export interface ActiveRun {
  readonly run: CompositionRun;
  readonly submittedAt: string;
  completedAt: string | null;
  /** Status that is committed; `run.status` may be ahead of it. */
  committed: CompositionRun["status"];
  /** Member jobs that are not over. */
  readonly members: Map<string, JobEntry>;
  readonly done: PromiseWithResolvers<void>;
  /** Nodes and items that the cache is asked about. */
  readonly lookups: Set<string>;
  /** Nodes and items whose result came from the cache. */
  readonly cached: Map<string, CacheEntry>;
  /** Of its members' results together. */
  resultSize: number;
  /** It has failed under `fail_fast`, or was cancelled: nothing starts, and nothing is repeated. */
  isHalted: boolean;
  /** A unit that starts more of what is ready is on its way. */
  goesOn: boolean;
}

/** What a `for_each` runs over, and how it is stored. */
export interface ItemList {
  readonly values: readonly unknown[];
  readonly items: StoredValue;
}

/** How a member job that is over ended. */
export function outcomeOf(entry: JobEntry): NodeOutcome {
  if (entry.planned === "completed") return { state: "completed", result: entry.result };
  if (!isTerminal(entry.planned)) {
    throw new TypeError(`Job ${entry.spec.id} is ${entry.planned}, not over`);
  }
  const state = entry.planned === "cancelled" ? "cancelled" : "failed";
  return { state, error: entry.error ?? undefined };
}

export function failedWith(error: unknown): NodeOutcome {
  return { state: "failed", error: toJobError(error) };
}

/** Whether a node, or an item of one, has neither begun nor ended. */
export function isPending(
  { run }: ActiveRun,
  { node, index }: { readonly node: CompositionNode; readonly index: number | null },
): boolean {
  const { state, items } = requireNode(run, node.id);
  return index === null ? state === "pending" : items?.runs[index]?.state === "pending";
}
