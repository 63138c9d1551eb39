import {
  type Composition,
  type NodeState,
  parseComposition,
  resultsByNode,
  type RunStatus,
} from "../composition/index.ts";
import type { JobError } from "../errors/index.ts";
import {
  type CompositionRecord,
  type NodeRecord,
  type ResultFiles,
  type StoreReads,
  WHOLE_NODE,
} from "../store/index.ts";
import type { ActiveRun } from "./active-run.ts";

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

/** A composition that this host runs, or has run lately. */
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

interface Reads {
  readonly store: StoreReads;
  readonly results: ResultFiles;
}

/** A composition that only the store knows, from whichever host ran it; undefined if it does not. */
export async function storedView(
  compositionId: string,
  { store, results }: Reads,
): Promise<CompositionView | undefined> {
  const record = await store.getComposition(compositionId);
  if (record === undefined) return undefined;
  const rows = await store.nodeRuns(compositionId);
  const read = await resultReader(compositionId, { store, results });
  const byNode = Map.groupBy(rows, ({ nodeId }) => nodeId);
  const nodes: NodeView[] = [];
  const found: Record<string, unknown> = {};
  for (const { id, instance } of storedComposition(record).nodes) {
    const [own, ...items] = (byNode.get(id) ?? []).toSorted((a, b) => a.itemIndex - b.itemIndex);
    nodes.push(nodeView(id, instance, own, items));
    if (own?.state !== "completed") continue;
    found[id] =
      own.jobId === null && own.result === null ? await listOf(items, read) : await read(own);
  }
  const { id, name, status, cancelRequested, submittedAt, completedAt } = record;
  return { id, name, status, cancelRequested, submittedAt, completedAt, nodes, results: found };
}

export function storedComposition({ spec }: CompositionRecord): Composition {
  return parseComposition(spec);
}

function nodeView(
  id: string,
  instance: string,
  own: NodeRecord | undefined,
  items: readonly NodeRecord[],
): NodeView {
  return {
    id,
    instance,
    state: own?.state ?? "pending",
    jobId: own?.jobId ?? null,
    error: own?.error ?? null,
    ...(items.length > 0 && { items: items.map(({ state, jobId }) => ({ state, jobId })) }),
  };
}

type ReadResult = (row: NodeRecord) => Promise<unknown>;

/** The result of a node or item: in its own row, or in its job's. */
export async function resultReader(
  compositionId: string,
  { store, results }: Reads,
): Promise<ReadResult> {
  const jobs = new Map((await store.listJobs({ compositionId })).map((job) => [job.id, job]));
  return async (row) => {
    const value = row.result ?? jobs.get(row.jobId ?? "")?.result ?? null;
    return value === null ? undefined : await results.show(value);
  };
}

async function listOf(items: readonly NodeRecord[], read: ReadResult): Promise<unknown[]> {
  const values: unknown[] = [];
  for (const item of items) {
    if (item.itemIndex === WHOLE_NODE) continue;
    values.push(item.state === "failed" ? { __error__: item.error } : await read(item));
  }
  return values;
}
