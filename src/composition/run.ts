import { findCycle, dependencies } from "./graph.ts";
import { invalidComposition } from "./issues.ts";
import type { JobError } from "../errors/index.ts";
import type {
  Advance,
  Composition,
  CompositionRun,
  NodeOutcome,
  NodeRun,
  NodeState,
  RunStatus,
  SkipCause,
} from "./types.ts";

/** What the store knows of a node whose run is continued; only terminal nodes need be given. */
export interface RestoredNode {
  readonly id: string;
  readonly state: Exclude<NodeState, "pending" | "running">;
  readonly jobId?: string | undefined;
  readonly result?: unknown;
  readonly error?: JobError | undefined;
  readonly skipCause?: SkipCause | undefined;
}

/**
 * The run record of a composition at its begin.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` if it has no order: duplicate or unknown ids, a cycle.
 */
export function newRun(composition: Composition, id: string): CompositionRun {
  return restoreRun(composition, id, []).run;
}

/**
 * The run record of a composition that was interrupted. A node that is not given, or was running,
 * is pending again.
 *
 * `skipped` are nodes that are newly found to be unrunnable; the caller stores them.
 */
export function restoreRun(
  composition: Composition,
  id: string,
  restored: Iterable<RestoredNode>,
): { readonly run: CompositionRun; readonly skipped: readonly string[] } {
  const run = {
    ...topology(composition),
    id,
    status: "running" as RunStatus,
    cancelRequested: false,
  };
  for (const record of restored) {
    const node = requireNode(run, record.id);
    node.jobId = record.jobId;
    node.result = record.result;
    node.error = record.error;
    node.skipCause = record.skipCause;
    setState(run, node, record.state);
  }
  // Taken before any is released: a node that becomes skipped on the way must not be told twice.
  const ended = [...run.nodeRuns.values()].filter((node) => isTerminal(node.state));
  for (const node of run.nodeRuns.values()) {
    if (node.state === "pending" && run.waitingFor.get(node.id) === 0) run.ready.add(node.id);
  }
  const skipped = ended.flatMap((node) => release(run, node).skipped);
  return { run, skipped };
}

function topology(
  composition: Composition,
): Omit<CompositionRun, "id" | "status" | "cancelRequested"> {
  const nodes = new Map(composition.nodes.map((node) => [node.id, node]));
  const needs = new Map(composition.nodes.map((node) => [node.id, dependencies(node)]));
  const all = new Map([...needs].map(([id, { all }]) => [id, all]));
  const dependents = new Map<string, string[]>();
  for (const [id, upstream] of all) {
    for (const needed of upstream) {
      const known = dependents.get(needed);
      if (known === undefined) dependents.set(needed, [id]);
      else known.push(id);
    }
  }
  requireOrder(composition, all);
  return {
    composition,
    nodes,
    dependencies: all,
    dependents,
    optional: new Map([...needs].map(([id, { optional }]) => [id, optional])),
    nodeRuns: new Map(composition.nodes.map(({ id }) => [id, pendingNode(id)])),
    ready: new Set(),
    waitingFor: new Map([...all].map(([id, upstream]) => [id, upstream.size])),
    tally: {
      pending: composition.nodes.length,
      running: 0,
      completed: 0,
      failed: 0,
      cancelled: 0,
      skipped: 0,
    },
  };
}

function requireOrder(
  composition: Composition,
  graph: ReadonlyMap<string, ReadonlySet<string>>,
): void {
  const unknown = [...graph].flatMap(([id, upstream]) =>
    [...upstream].filter((needed) => !graph.has(needed)).map((needed) => ({ id, needed })),
  );
  const cycle = findCycle(graph);
  const problems = [
    ...(graph.size === composition.nodes.length
      ? []
      : [{ path: "nodes", message: "two nodes have the same id" }]),
    ...unknown.map(({ id, needed }) => ({
      node: id,
      path: "kwargs",
      message: `refers to "${needed}", which is no node`,
    })),
    ...(cycle === undefined ? [] : [{ path: "nodes", message: `a cycle: ${cycle.join(" → ")}` }]),
  ];
  if (problems.length > 0) throw invalidComposition(problems);
}

function pendingNode(id: string): NodeRun {
  return {
    id,
    state: "pending",
    jobId: undefined,
    result: undefined,
    error: undefined,
    skipCause: undefined,
    items: undefined,
  };
}

/** Nodes that may start now: pending, with every input there. */
export function readyNodes(run: CompositionRun): readonly string[] {
  return [...run.ready];
}

/** Marks a ready node running and binds it to its member job. */
export function recordStarted(run: CompositionRun, nodeId: string, jobId: string): void {
  const node = requireNode(run, nodeId);
  if (!run.ready.has(nodeId)) throw new TypeError(`Node "${nodeId}" is not ready to start`);
  node.jobId = jobId;
  setState(run, node, "running");
}

/**
 * Records how a node ended, and frees or skips what waited for it.
 *
 * Dependents of a node that did not complete are skipped, transitively: their inputs will never
 * exist. An optional marker accepts a source that a `when` skipped, not one that failed.
 * A node may end without having started: its binding failed, its result came from the cache, it was
 * cancelled. `Advance` holds exactly what changed, the edges of this node and of those it skipped.
 */
export function recordResult(run: CompositionRun, nodeId: string, outcome: NodeOutcome): Advance {
  const node = requireNode(run, nodeId);
  if (isTerminal(node.state)) throw new TypeError(`Node "${nodeId}" has ended already`);
  if (outcome.state === "completed") node.result = outcome.result;
  else node.error = outcome.error;
  setState(run, node, outcome.state);
  return release(run, node);
}

/** Records that a ready node's `when` said no. */
export function recordSkipped(run: CompositionRun, nodeId: string): Advance {
  const node = requireNode(run, nodeId);
  if (node.state !== "pending") throw new TypeError(`Node "${nodeId}" is not pending`);
  node.skipCause = "when";
  setState(run, node, "skipped");
  return release(run, node);
}

/**
 * Cancels every node that has not started: housekeeping after a failure under `fail_fast`, or the
 * user's cancel. Running members are the caller's to end. Answers with their ids.
 */
export function cancelPending(run: CompositionRun): readonly string[] {
  const cancelled: string[] = [];
  for (const node of run.nodeRuns.values()) {
    if (node.state !== "pending") continue;
    setState(run, node, "cancelled");
    cancelled.push(node.id);
  }
  return cancelled;
}

/** True when nothing is left to run or to wait for. */
export function allTerminal(run: CompositionRun): boolean {
  return run.tally.pending === 0 && run.tally.running === 0;
}

/**
 * How a run whose nodes are all terminal ended. The user's cancel is above everything; then a
 * failure under `fail_fast`, whose housekeeping cancels do not count; then a member that was
 * cancelled by itself; else it is completed, failed members of a best-effort run included.
 */
export function deriveTerminalStatus(run: CompositionRun): Exclude<RunStatus, "running"> {
  if (run.cancelRequested) return "cancelled";
  if (run.composition.failFast && run.tally.failed > 0) return "failed";
  return run.tally.cancelled > 0 ? "cancelled" : "completed";
}

/** Results of the completed nodes by id. */
export function resultsByNode(run: CompositionRun): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    [...run.nodeRuns.values()]
      .filter((node) => node.state === "completed")
      .map((node) => [node.id, node.result]),
  );
}

/** @throws {TypeError} for an id the composition does not have. */
export function requireNode(run: CompositionRun, nodeId: string): NodeRun {
  const node = run.nodeRuns.get(nodeId);
  if (node === undefined) throw new TypeError(`The composition has no node "${nodeId}"`);
  return node;
}

export function isTerminal(state: NodeState): boolean {
  return state !== "pending" && state !== "running";
}

export function setState(run: CompositionRun, node: NodeRun, state: NodeState): void {
  run.tally[node.state] -= 1;
  run.tally[state] += 1;
  node.state = state;
  if (state !== "pending") run.ready.delete(node.id);
}

/** Tells the dependents of a terminal node, and of each node that is skipped by that. */
function release(run: CompositionRun, ended: NodeRun): Advance {
  const ready: string[] = [];
  const skipped: string[] = [];
  const toTell = [ended];
  for (let source = toTell.pop(); source !== undefined; source = toTell.pop()) {
    for (const id of run.dependents.get(source.id) ?? []) {
      const dependent = requireNode(run, id);
      const change = dependent.state === "pending" ? tell(run, dependent, source) : "none";
      if (change === "ready") ready.push(id);
      if (change !== "skipped") continue;
      skipped.push(id);
      toTell.push(dependent);
    }
  }
  return { ready, skipped };
}

/** Tells one pending node that one of its sources ended. */
function tell(run: CompositionRun, node: NodeRun, source: NodeRun): "none" | "ready" | "skipped" {
  if (satisfies(run, source, node.id)) return countDown(run, node.id) ? "ready" : "none";
  node.skipCause = source.skipCause === "when" ? "when" : "upstream";
  setState(run, node, "skipped");
  return "skipped";
}

/** True where `dependent` can run although, or because, `source` ended like this. */
function satisfies(run: CompositionRun, source: NodeRun, dependent: string): boolean {
  if (source.state === "completed") return true;
  const isOptional = run.optional.get(dependent)?.has(source.id) === true;
  return isOptional && source.skipCause === "when";
}

/** Takes one off what a node waits for; true when that was the last. */
function countDown(run: CompositionRun, nodeId: string): boolean {
  const waiting = (run.waitingFor.get(nodeId) ?? 0) - 1;
  run.waitingFor.set(nodeId, waiting);
  if (waiting > 0) return false;
  run.ready.add(nodeId);
  return true;
}
