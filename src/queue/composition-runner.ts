import {
  allTerminal,
  cancelPending as cancelPendingNodes,
  cancelPendingItems,
  type Composition,
  type CompositionNode,
  type CompositionRun,
  deriveTerminalStatus,
  evaluateWhen,
  expandForEach,
  newRun,
  type NodeOutcome,
  pendingItemIndexes,
  recordItemResult,
  recordItemStarted,
  recordResult,
  recordSkipped,
  recordStarted,
  requireNode,
  resolveForEach,
  resolveKwargs,
  scopeOf,
} from "../composition/index.ts";
import { toJobError } from "../errors/index.ts";
import { type CompositionRecord, WHOLE_NODE } from "../store/index.ts";
import { newId } from "../util/ids.ts";
import { cancelJob } from "./cancellation.ts";
import { cancelPending } from "./endings.ts";
import { isTerminal, type JobEntry } from "./job.ts";
import { provenanceOf } from "./provenance.ts";
import type { JobQueue } from "./queue.ts";
import type { Unit } from "./unit.ts";

/** Member jobs that one unit makes at most: a wide DAG must not become one commit of all its rows. */
const STARTS_PER_UNIT = 256;

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
  /** A unit that starts more of what is ready is on its way. */
  goesOn: boolean;
}

/**
 * Advances compositions, inside the units of the run loop: a member job is made when its inputs
 * exist, in the same commit as the end of what it waited for.
 */
export class CompositionRunner {
  readonly active = new Map<string, ActiveRun>();
  readonly #finished = new Set<ActiveRun>();
  #finishedNodes = 0;
  readonly #queue: JobQueue;

  constructor(queue: JobQueue) {
    this.#queue = queue;
    queue.loop.onMemberEnded((entry, unit) => {
      this.#memberEnded(entry, unit);
    });
  }

  /** Stores a validated composition and starts what can start. */
  async submit(composition: Composition): Promise<ActiveRun> {
    const active = this.adopt(newRun(composition, newId()), new Date().toISOString());
    try {
      await this.#queue.loop.transact((unit) => {
        unit.write({ op: "composition.insert", composition: recordOf(active) });
        this.#journal(active, unit, "composition_submitted", {
          name: composition.name ?? null,
          nodes: composition.nodes.length,
        });
        this.advance(active, unit);
      });
    } catch (error) {
      this.active.delete(active.run.id);
      throw error;
    }
    return active;
  }

  /** Takes a run into this host's care. */
  adopt(run: CompositionRun, submittedAt: string): ActiveRun {
    const active: ActiveRun = {
      run,
      submittedAt,
      completedAt: null,
      committed: "running",
      members: new Map(),
      done: Promise.withResolvers<void>(),
      goesOn: false,
    };
    this.active.set(run.id, active);
    return active;
  }

  /** Records the user's intent first, then cancels what can be cancelled. */
  cancel(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    run.cancelRequested = true;
    unit.write({ op: "composition.update", id: run.id, changes: { cancelRequested: true } });
    this.#journal(active, unit, "cancel_phase_changed", { from: null, to: "cooperative" });
    this.#halt(active, unit);
    for (const entry of active.members.values()) cancelJob(this.#queue.loop, entry, unit);
    this.#finishIfDone(active, unit);
  }

  /** Starts every node that may start, and ends the run if nothing is left. */
  advance(active: ActiveRun, unit: Unit): void {
    this.#startReady(active, unit);
    this.#finishIfDone(active, unit);
  }

  #startReady(active: ActiveRun, unit: Unit): readonly string[] {
    const { run } = active;
    const enqueued: string[] = [];
    // Starting one can make others ready, or end them; the set says what is left.
    for (let next = first(run.ready); next !== undefined; next = first(run.ready)) {
      const node = run.nodes.get(next);
      if (node === undefined) throw new TypeError(`Node "${next}" is ready and does not exist`);
      if (enqueued.length === STARTS_PER_UNIT) {
        this.#goOnLater(active, unit);
        break;
      }
      if (this.#start(active, node, unit)) enqueued.push(next);
    }
    return [...enqueued, ...run.ready];
  }

  /** The rest is made in the next unit; after a crash in between, resume makes it. */
  #goOnLater(active: ActiveRun, unit: Unit): void {
    if (active.goesOn) return;
    active.goesOn = true;
    unit.after(() => {
      active.goesOn = false;
      this.#queue.loop.run((next) => {
        if (active.run.status !== "running") return;
        for (const node of active.run.nodes.values()) this.startItems(active, node, next);
        this.advance(active, next);
      });
    });
  }

  /** True if the node has a job, or several, now. */
  #start(active: ActiveRun, node: CompositionNode, unit: Unit): boolean {
    const { run } = active;
    try {
      const scope = scopeOf(run, node.id);
      if (!evaluateWhen(node, scope)) {
        this.#skip(active, node, unit);
        return false;
      }
      if (node.forEach !== undefined) {
        return this.#expand(active, node, resolveForEach(node, scope), unit);
      }
      const entry = this.#memberJob(active, node, resolveKwargs(node, scope), null);
      recordStarted(run, node.id, entry.spec.id);
      this.putNode(active, node.id, unit);
      active.members.set(entry.spec.id, entry);
      this.#queue.loop.add(entry, unit);
      return true;
    } catch (error) {
      this.#ended(active, node.id, { state: "failed", error: toJobError(error) }, unit);
      return false;
    }
  }

  #skip(active: ActiveRun, node: CompositionNode, unit: Unit): void {
    const { skipped } = recordSkipped(active.run, node.id);
    for (const id of [node.id, ...skipped]) this.putNode(active, id, unit);
  }

  #expand(
    active: ActiveRun,
    node: CompositionNode,
    values: readonly unknown[],
    unit: Unit,
  ): boolean {
    const { run } = active;
    const advance = expandForEach(run, node.id, values);
    unit.write({
      op: "items.put",
      items: {
        compositionId: run.id,
        nodeId: node.id,
        count: values.length,
        items: { kind: "inline", json: JSON.stringify(values) },
      },
    });
    this.putNode(active, node.id, unit);
    for (const id of advance.skipped) this.putNode(active, id, unit);
    this.startItems(active, node, unit);
    return values.length > 0;
  }

  /** Makes the jobs of a running `for_each` node's items that have none. */
  startItems(active: ActiveRun, node: CompositionNode, unit: Unit): void {
    const { run } = active;
    if (requireNode(run, node.id).state !== "running") return;
    const indexes = pendingItemIndexes(run, node.id);
    if (indexes.length > STARTS_PER_UNIT) this.#goOnLater(active, unit);
    for (const index of indexes.slice(0, STARTS_PER_UNIT)) {
      // A failure under fail_fast may have cancelled the rest meanwhile.
      if (requireNode(run, node.id).items?.runs[index]?.state !== "pending") continue;
      this.#startItem(active, node, index, unit);
    }
  }

  #startItem(active: ActiveRun, node: CompositionNode, index: number, unit: Unit): void {
    const { run } = active;
    try {
      const kwargs = resolveKwargs(node, scopeOf(run, node.id, index));
      const entry = this.#memberJob(active, node, kwargs, index);
      recordItemStarted(run, { nodeId: node.id, index }, entry.spec.id);
      this.#putItem(active, node.id, index, unit);
      active.members.set(entry.spec.id, entry);
      this.#queue.loop.add(entry, unit);
    } catch (error) {
      this.#itemEnded(active, { nodeId: node.id, index }, failedWith(error), unit);
    }
  }

  #memberJob(
    { run }: ActiveRun,
    node: CompositionNode,
    kwargs: Readonly<Record<string, unknown>>,
    itemIndex: number | null,
  ): JobEntry {
    return this.#queue.newJob(node.instance, kwargs, {
      action: node.action,
      task: node.task,
      method: node.method,
      control: node.control,
      priority: node.priority === 0 ? run.composition.priority : node.priority,
      timeoutMs: node.timeoutMs,
      maxRetries: node.retries,
      runId: run.composition.runId,
      actor: run.composition.actor,
      member: { compositionId: run.id, nodeId: node.id, itemIndex },
    });
  }

  #memberEnded(entry: JobEntry, unit: Unit): void {
    const { compositionId, nodeId, itemIndex } = entry.spec;
    const active = compositionId === null ? undefined : this.active.get(compositionId);
    if (active === undefined || nodeId === null) return;
    active.members.delete(entry.spec.id);
    const outcome = outcomeOf(entry);
    if (itemIndex === null) this.#ended(active, nodeId, outcome, unit);
    else this.#itemEnded(active, { nodeId, index: itemIndex }, outcome, unit);
    const enqueued = this.#startReady(active, unit);
    if (requireNode(active.run, nodeId).state === "completed") {
      this.#journal(active, unit, "composition_advanced", {
        completed_node: nodeId,
        enqueued_nodes: enqueued,
      });
    }
    this.#finishIfDone(active, unit);
  }

  #ended(active: ActiveRun, nodeId: string, outcome: NodeOutcome, unit: Unit): void {
    const { skipped } = recordResult(active.run, nodeId, outcome);
    for (const id of [nodeId, ...skipped]) this.putNode(active, id, unit);
    if (outcome.state === "failed" && active.run.composition.failFast) this.#halt(active, unit);
  }

  #itemEnded(
    active: ActiveRun,
    address: { readonly nodeId: string; readonly index: number },
    outcome: NodeOutcome,
    unit: Unit,
  ): void {
    const { nodeId, index } = address;
    const advance = recordItemResult(active.run, address, outcome);
    for (const one of [index, ...advance.cancelledItems]) this.#putItem(active, nodeId, one, unit);
    if (advance.nodeEnded) this.putNode(active, nodeId, unit);
    for (const id of advance.skipped) this.putNode(active, id, unit);
    if (outcome.state === "failed" && active.run.composition.failFast) this.#halt(active, unit);
  }

  /** Nothing new starts: what has no job is cancelled, and so are jobs that still wait. */
  #halt(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    for (const id of cancelPendingNodes(run)) this.putNode(active, id, unit);
    for (const { id, state, items } of run.nodeRuns.values()) {
      if (state !== "running" || items === undefined) continue;
      const { cancelledItems, skipped } = cancelPendingItems(run, id);
      for (const index of cancelledItems) this.#putItem(active, id, index, unit);
      for (const other of skipped) this.putNode(active, other, unit);
    }
    for (const entry of active.members.values()) {
      if (entry.planned === "pending") cancelPending(this.#queue.loop, entry, unit);
    }
  }

  #finishIfDone(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    if (run.status !== "running" || !allTerminal(run)) return;
    const status = deriveTerminalStatus(run);
    run.status = status;
    const completedAt = new Date().toISOString();
    unit.write({ op: "composition.update", id: run.id, changes: { status, completedAt } });
    this.#journal(active, unit, "state_transition", { from: "running", to: status });
    unit.after(() => {
      active.committed = status;
      active.completedAt = completedAt;
      active.done.resolve();
      this.#forgetOldest(active);
    });
  }

  /** Keeps what is over within the bound for jobs that are: by nodes, a large one counts as many. */
  #forgetOldest(ended: ActiveRun): void {
    this.#finished.add(ended);
    this.#finishedNodes += ended.run.nodeRuns.size;
    for (const oldest of this.#finished) {
      if (this.#finishedNodes <= this.#queue.loop.options.history || oldest === ended) return;
      this.#finished.delete(oldest);
      this.#finishedNodes -= oldest.run.nodeRuns.size;
      this.active.delete(oldest.run.id);
    }
  }

  /** Tells whoever waits that this host will not finish what it has begun. */
  close(): void {
    for (const { done } of this.active.values()) done.resolve();
  }

  /** Writes the row of a node as it is now. */
  putNode({ run }: ActiveRun, nodeId: string, unit: Unit): void {
    const node = requireNode(run, nodeId);
    unit.write({
      op: "node.put",
      node: {
        compositionId: run.id,
        nodeId,
        itemIndex: WHOLE_NODE,
        state: node.state,
        jobId: node.jobId ?? null,
        result: null,
        error: node.error ?? null,
        skipCause: node.skipCause ?? null,
        provenance: provenanceOf(run, node, this.#queue.loop.jobs.get(node.jobId ?? "")),
      },
    });
  }

  #putItem({ run }: ActiveRun, nodeId: string, index: number, unit: Unit): void {
    const item = requireNode(run, nodeId).items?.runs[index];
    if (item === undefined) return;
    unit.write({
      op: "node.put",
      node: {
        compositionId: run.id,
        nodeId,
        itemIndex: index,
        state: item.state,
        jobId: item.jobId ?? null,
        result: null,
        error: item.error ?? null,
        skipCause: null,
        provenance: {},
      },
    });
  }

  #journal(
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
}

function recordOf({ run, submittedAt }: ActiveRun): CompositionRecord {
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

function outcomeOf(entry: JobEntry): NodeOutcome {
  if (entry.planned === "completed") return { state: "completed", result: entry.result };
  if (!isTerminal(entry.planned)) {
    throw new TypeError(`Job ${entry.spec.id} is ${entry.planned}, not over`);
  }
  const state = entry.planned === "cancelled" ? "cancelled" : "failed";
  return { state, error: entry.error ?? undefined };
}

function failedWith(error: unknown): NodeOutcome {
  return { state: "failed", error: toJobError(error) };
}

function first(ids: ReadonlySet<string>): string | undefined {
  return ids.values().next().value;
}
