import { requireNode } from "../composition/index.ts";
import type { CompositionNode } from "../composition/index.ts";
import { type CacheEntry, type CompositionRecord, WHOLE_NODE } from "../store/index.ts";
import type { ActiveRun } from "./active-run.ts";
import type { JobEntry } from "./job.ts";
import { contentHashes, provenanceOf } from "./provenance.ts";
import type { RunLoop } from "./run-loop.ts";
import type { Unit } from "./unit.ts";

/** A node, or an item of one, whose inputs exist. */
export interface MemberCall {
  readonly node: CompositionNode;
  readonly kwargs: Readonly<Record<string, unknown>>;
  /** Position in the node's `for_each` list. */
  readonly index: number | null;
}

/** One item of a `for_each` node. */
export interface ItemAddress {
  readonly nodeId: string;
  readonly index: number;
}

/** Names a node or item within its composition. */
export function addressOf({ node, index }: Pick<MemberCall, "node" | "index">): string {
  return address(node.id, index);
}

function address(nodeId: string, index: number | null): string {
  return `${index ?? ""}/${nodeId}`;
}

/** The row of a run at its begin. */
export function recordOf({ run, submittedAt }: ActiveRun): CompositionRecord {
  const { composition } = run;
  return {
    id: run.id,
    name: composition.name ?? null,
    spec: composition,
    status: "running",
    failFast: composition.failFast,
    priority: composition.priority,
    runId: composition.runId ?? null,
    actor: composition.actor ?? null,
    cancelRequested: false,
    submittedAt,
    completedAt: null,
  };
}

/** Writes the row of a node as it is now. */
export function putNode(loop: RunLoop, active: ActiveRun, nodeId: string, unit: Unit): void {
  const { run } = active;
  const node = requireNode(run, nodeId);
  const cached = active.cached.get(address(nodeId, null));
  unit.write({
    op: "node.put",
    node: {
      compositionId: run.id,
      nodeId,
      itemIndex: WHOLE_NODE,
      state: node.state,
      jobId: node.jobId ?? null,
      result: cached?.result ?? null,
      error: node.error ?? null,
      skipCause: node.skipCause ?? null,
      provenance:
        cached === undefined
          ? provenanceOf(run, node, loop.jobs.get(node.jobId ?? ""))
          : provenanceOfHit(active, nodeId, cached),
    },
  });
}

/** Writes the row of an item of a `for_each` node as it is now. */
export function putItem(active: ActiveRun, { nodeId, index }: ItemAddress, unit: Unit): void {
  const { run } = active;
  const item = requireNode(run, nodeId).items?.runs[index];
  if (item === undefined) return;
  const cached = active.cached.get(address(nodeId, index));
  unit.write({
    op: "node.put",
    node: {
      compositionId: run.id,
      nodeId,
      itemIndex: index,
      state: item.state,
      jobId: item.jobId ?? null,
      result: cached?.result ?? null,
      error: item.error ?? null,
      skipCause: null,
      provenance: cached === undefined ? {} : provenanceOfHit(active, nodeId, cached),
    },
  });
}

function provenanceOfHit({ run }: ActiveRun, nodeId: string, entry: CacheEntry) {
  const upstream = [...(run.dependencies.get(nodeId) ?? [])];
  return {
    cacheKey: entry.key,
    outputHashes: entry.outputs,
    ...(upstream.length > 0 && { upstream }),
  };
}

/** A journal row of the composition itself. */
export function journalRun(
  { run }: ActiveRun,
  unit: Unit,
  eventType: string,
  payload: Readonly<Record<string, unknown>>,
): void {
  unit.journal({
    eventType,
    compositionId: run.id,
    runId: run.composition.runId,
    actor: run.composition.actor,
    payload,
  });
}

/** Says that a node's result was taken from the cache, and whose it is. */
export function journalHit(
  { run }: ActiveRun,
  { node, index }: MemberCall,
  entry: CacheEntry,
  unit: Unit,
): void {
  unit.journal({
    eventType: "cache_hit",
    compositionId: run.id,
    nodeId: node.id,
    capabilityInstanceId: node.instance,
    capabilityName: entry.capabilityName,
    runId: run.composition.runId,
    actor: run.composition.actor,
    payload: {
      cache_key: entry.key,
      from_composition: entry.compositionId,
      from_node: entry.nodeId,
      from_job: entry.jobId,
      ...(index !== null && { item_index: index }),
    },
  });
}

/** Keeps a completed member's result for calls that would give the same. */
export function keepInCache(
  { spec, planned, cacheKey, stored, result }: JobEntry,
  unit: Unit,
): void {
  if (cacheKey === null || stored === null || planned !== "completed") return;
  unit.write({
    op: "cache.put",
    entry: {
      key: cacheKey,
      capabilityName: spec.capability,
      compositionId: spec.compositionId,
      nodeId: spec.nodeId,
      jobId: spec.id,
      result: stored,
      outputs: contentHashes(result),
      createdAt: new Date().toISOString(),
    },
  });
}
