import {
  allTerminal,
  cancelPending as cancelPendingNodes,
  cancelPendingItems,
  type Composition,
  type CompositionNode,
  type CompositionRun,
  deriveTerminalStatus,
  newRun,
  type NodeOutcome,
  recordItemResult,
  recordResult,
  requireNode,
} from "../composition/index.ts";
import { newId } from "../util/ids.ts";
import { cancelJob } from "./cancellation.ts";
import { cancelPending } from "./endings.ts";
import {
  journalRun,
  keepInCache,
  type ItemAddress,
  putItem,
  putNode,
  recordOf,
} from "./composition-rows.ts";
import { type ActiveRun, outcomeOf } from "./active-run.ts";
import { type JobEntry, resultSize } from "./job.ts";
import { RESULTS_IN_MEMORY } from "./job-table.ts";
import type { JobQueue } from "./queue.ts";
import { NodeStarter, STARTS_PER_UNIT } from "./node-starter.ts";
import type { Unit } from "./unit.ts";

/**
 * Advances compositions, inside the units of the run loop: a member job is made when its inputs
 * exist, in the same commit as the end of what it waited for.
 */
export class CompositionRunner {
  readonly active = new Map<string, ActiveRun>();
  readonly #finished = new Set<ActiveRun>();
  #finishedNodes = 0;
  #finishedResults = 0;
  readonly #queue: JobQueue;
  readonly #starter: NodeStarter;

  constructor(queue: JobQueue) {
    this.#queue = queue;
    this.#starter = new NodeStarter(queue, {
      ended: (...told) => void this.#ended(...told),
      itemEnded: (...told) => void this.#itemEnded(...told),
      advance: (active, unit) => {
        this.advance(active, unit);
      },
      goOnLater: (active, unit) => {
        this.#goOnLater(active, unit);
      },
    });
    queue.loop.ownMembers({
      ended: (entry, unit) => {
        this.#memberEnded(entry, unit);
      },
      isHalted: ({ spec }) => this.active.get(spec.compositionId ?? "")?.isHalted === true,
    });
  }

  /** Stores a validated composition and starts what can start. */
  async submit(composition: Composition): Promise<ActiveRun> {
    const active = this.adopt(newRun(composition, newId()), new Date().toISOString());
    try {
      await this.#queue.loop.transact((unit) => {
        unit.write({ op: "composition.insert", composition: recordOf(active) });
        journalRun(active, unit, "composition_submitted", {
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
      resultSize: 0,
      isHalted: false,
      goesOn: false,
      lookups: new Set(),
      cached: new Map(),
    };
    this.active.set(run.id, active);
    return active;
  }

  /** Records the user's intent first, then cancels what can be cancelled. */
  cancel(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    run.cancelRequested = true;
    unit.write({ op: "composition.update", id: run.id, changes: { cancelRequested: true } });
    journalRun(active, unit, "cancel_phase_changed", { from: null, to: "cooperative" });
    this.#halt(active, unit);
    for (const entry of active.members.values()) cancelJob(this.#queue.loop, entry, unit);
    this.#finishIfDone(active, unit);
  }

  /** Starts every node that may start, and ends the run if nothing is left. */
  advance(active: ActiveRun, unit: Unit): void {
    this.#startReady(active, unit);
    this.#finishIfDone(active, unit);
  }

  #startReady(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    let started = 0;
    // Starting one can make others ready, or end them; the set says what is left.
    for (let next = first(run.ready); next !== undefined; next = first(run.ready)) {
      const node = run.nodes.get(next);
      if (node === undefined) throw new TypeError(`Node "${next}" is ready and does not exist`);
      if (started === STARTS_PER_UNIT) {
        this.#goOnLater(active, unit);
        return;
      }
      if (this.#starter.start(active, node, unit)) started += 1;
    }
  }

  /** Makes the jobs of a running `for_each` node's items that have none. */
  startItems(active: ActiveRun, node: CompositionNode, unit: Unit): void {
    this.#starter.startItems(active, node, unit);
  }

  /** The key under which a member's result may be used again; null where it cannot be made. */
  async cacheKeyOf(
    node: CompositionNode,
    kwargs: Readonly<Record<string, unknown>>,
  ): Promise<string | null> {
    return await this.#starter.cacheKeyOf(node, kwargs);
  }

  /** The rest is made in the next unit; after a crash in between, resume makes it. */
  #goOnLater(active: ActiveRun, unit: Unit): void {
    if (active.goesOn) return;
    active.goesOn = true;
    unit.after(() => {
      active.goesOn = false;
      this.#queue.loop.run((next) => {
        if (active.run.status !== "running") return;
        for (const node of active.run.nodes.values()) this.#starter.startItems(active, node, next);
        this.advance(active, next);
      });
    });
  }

  #memberEnded(entry: JobEntry, unit: Unit): void {
    const { compositionId, nodeId, itemIndex } = entry.spec;
    const active = compositionId === null ? undefined : this.active.get(compositionId);
    if (active === undefined || nodeId === null) return;
    active.members.delete(entry.spec.id);
    active.resultSize += resultSize(entry);
    keepInCache(entry, unit);
    const outcome = outcomeOf(entry);
    const freed =
      itemIndex === null
        ? this.#ended(active, nodeId, outcome, unit)
        : this.#itemEnded(active, { nodeId, index: itemIndex }, outcome, unit);
    this.#startReady(active, unit);
    if (requireNode(active.run, nodeId).state === "completed") {
      journalRun(active, unit, "composition_advanced", {
        completed_node: nodeId,
        enqueued_nodes: freed.filter((id) => isUnderWay(active, id)),
      });
    }
    this.#finishIfDone(active, unit);
  }

  /** Answers with the nodes that may start because of it. */
  #ended(active: ActiveRun, nodeId: string, outcome: NodeOutcome, unit: Unit): readonly string[] {
    const { ready, skipped } = recordResult(active.run, nodeId, outcome);
    for (const id of [nodeId, ...skipped]) putNode(this.#queue.loop, active, id, unit);
    if (outcome.state === "failed" && active.run.composition.failFast) this.#halt(active, unit);
    return ready;
  }

  #itemEnded(
    active: ActiveRun,
    address: ItemAddress,
    outcome: NodeOutcome,
    unit: Unit,
  ): readonly string[] {
    const { nodeId, index } = address;
    const advance = recordItemResult(active.run, address, outcome);
    for (const one of [index, ...advance.cancelledItems]) {
      putItem(active, { nodeId, index: one }, unit);
    }
    if (advance.nodeEnded) putNode(this.#queue.loop, active, nodeId, unit);
    for (const id of advance.skipped) putNode(this.#queue.loop, active, id, unit);
    if (outcome.state === "failed" && active.run.composition.failFast) this.#halt(active, unit);
    return advance.ready;
  }

  /** Nothing new starts: what has no job is cancelled, and so are jobs that still wait. */
  #halt(active: ActiveRun, unit: Unit): void {
    this.haltNodes(active, unit);
    for (const entry of active.members.values()) {
      if (entry.planned === "pending") cancelPending(this.#queue.loop, entry, unit);
    }
  }

  /** The nodes and items of a run that have no job get none any more. */
  haltNodes(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    active.isHalted = true;
    for (const id of cancelPendingNodes(run)) putNode(this.#queue.loop, active, id, unit);
    for (const { id, state, items } of run.nodeRuns.values()) {
      if (state !== "running" || items === undefined) continue;
      const { cancelledItems, skipped } = cancelPendingItems(run, id);
      for (const index of cancelledItems) putItem(active, { nodeId: id, index }, unit);
      for (const other of skipped) putNode(this.#queue.loop, active, other, unit);
    }
  }

  #finishIfDone(active: ActiveRun, unit: Unit): void {
    const { run } = active;
    if (run.status !== "running" || !allTerminal(run)) return;
    const status = deriveTerminalStatus(run);
    run.status = status;
    const completedAt = new Date().toISOString();
    unit.write({ op: "composition.update", id: run.id, changes: { status, completedAt } });
    journalRun(active, unit, "state_transition", { from: "running", to: status });
    unit.after(() => {
      active.committed = status;
      active.completedAt = completedAt;
      active.done.resolve();
      this.#forgetOldest(active);
    });
  }

  /** Keeps what is over within the bounds for jobs that are, by the nodes and their results. */
  #forgetOldest(ended: ActiveRun): void {
    this.#finished.add(ended);
    this.#finishedNodes += ended.run.nodeRuns.size;
    this.#finishedResults += ended.resultSize;
    const { history } = this.#queue.loop.options;
    for (const oldest of this.#finished) {
      const isWithin = this.#finishedNodes <= history && this.#finishedResults <= RESULTS_IN_MEMORY;
      if (isWithin || oldest === ended) return;
      this.#finished.delete(oldest);
      this.#finishedNodes -= oldest.run.nodeRuns.size;
      this.#finishedResults -= oldest.resultSize;
      this.active.delete(oldest.run.id);
    }
  }

  /** Tells whoever waits that this host will not finish what it has begun. */
  close(): void {
    for (const { done } of this.active.values()) done.resolve();
  }
}

function first(ids: ReadonlySet<string>): string | undefined {
  return ids.values().next().value;
}

/** Whether a node that became ready has a job, or will have. */
function isUnderWay({ run }: ActiveRun, nodeId: string): boolean {
  const { state } = requireNode(run, nodeId);
  return state === "running" || state === "pending";
}
