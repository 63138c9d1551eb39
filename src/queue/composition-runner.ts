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
import { newId } from "../util/ids.ts";
import { cancelJob } from "./cancellation.ts";
import { cancelPending } from "./endings.ts";
import {
  addressOf,
  journalHit,
  journalRun,
  keepInCache,
  type MemberCall,
  putItem,
  putNode,
  recordOf,
} from "./composition-rows.ts";
import { type ActiveRun, failedWith, isPending, type ItemList, outcomeOf } from "./active-run.ts";
import type { JobEntry } from "./job.ts";
import { type CacheAnswer, ResultCache } from "./result-cache.ts";
import type { JobQueue } from "./queue.ts";
import type { Unit } from "./unit.ts";

/** Member jobs that one unit makes at most: a wide DAG must not become one commit of all its rows. */
const STARTS_PER_UNIT = 256;

/**
 * Advances compositions, inside the units of the run loop: a member job is made when its inputs
 * exist, in the same commit as the end of what it waited for.
 */
export class CompositionRunner {
  readonly active = new Map<string, ActiveRun>();
  readonly #finished = new Set<ActiveRun>();
  #finishedNodes = 0;
  readonly #queue: JobQueue;
  readonly #cache: ResultCache;

  constructor(queue: JobQueue) {
    this.#queue = queue;
    this.#cache = new ResultCache(queue.loop.options);
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
        return this.#expandOrStore(active, node, resolveForEach(node, scope), unit);
      }
      const call = { node, kwargs: resolveKwargs(node, scope), index: null };
      if (node.cache) {
        run.ready.delete(node.id);
        this.#lookUp(active, call, unit);
      } else {
        this.#begin(active, call, unit);
      }
      return true;
    } catch (error) {
      this.#ended(active, node.id, failedWith(error), unit);
      return false;
    }
  }

  /** The key under which a member's result may be used again; null where it cannot be made. */
  async cacheKeyOf(
    node: CompositionNode,
    kwargs: Readonly<Record<string, unknown>>,
  ): Promise<string | null> {
    return node.cache ? await this.#cache.keyOf(node, kwargs).catch(() => null) : null;
  }

  /** Makes the member job of a call. */
  #begin(active: ActiveRun, call: MemberCall, unit: Unit, cacheKey: string | null = null): void {
    const { run } = active;
    const { node, index } = call;
    const entry = this.#memberJob(active, call, cacheKey);
    const { id } = entry.spec;
    if (index === null) {
      run.ready.add(node.id);
      recordStarted(run, node.id, id);
      putNode(this.#queue.loop, active, node.id, unit);
    } else {
      recordItemStarted(run, { nodeId: node.id, index }, id);
      putItem(active, { nodeId: node.id, index }, unit);
    }
    active.members.set(id, entry);
    this.#queue.loop.add(entry, unit);
  }

  /** Asks the cache before a member job is made; the node or item stays pending meanwhile. */
  #lookUp(active: ActiveRun, call: MemberCall, unit: Unit): void {
    active.lookups.add(addressOf(call));
    unit.after(() => {
      const { node, kwargs } = call;
      this.#cache.find(node, kwargs).then(
        (answer) => {
          this.#lookedUp(active, call, answer);
        },
        (error: unknown) => {
          this.#lookedUp(active, call, failedWith(error));
        },
      );
    });
  }

  #lookedUp(active: ActiveRun, call: MemberCall, answer: CacheAnswer | NodeOutcome): void {
    if (this.#queue.loop.isClosed) return;
    this.#queue.loop.run((unit) => {
      active.lookups.delete(addressOf(call));
      if (!isPending(active, call)) return;
      if ("state" in answer) this.#settle(active, call, answer, unit);
      else if (answer.hit === null) this.#beginOrFail(active, call, unit, answer.key);
      else this.#useCached(active, call, answer.hit, unit);
      this.advance(active, unit);
    });
  }

  #useCached(
    active: ActiveRun,
    call: MemberCall,
    { entry, result }: NonNullable<CacheAnswer["hit"]>,
    unit: Unit,
  ): void {
    active.cached.set(addressOf(call), entry);
    journalHit(active, call, entry, unit);
    this.#settle(active, call, { state: "completed", result }, unit);
  }

  #beginOrFail(active: ActiveRun, call: MemberCall, unit: Unit, cacheKey: string | null): void {
    try {
      this.#begin(active, call, unit, cacheKey);
    } catch (error) {
      this.#settle(active, call, failedWith(error), unit);
    }
  }

  #settle(active: ActiveRun, { node, index }: MemberCall, outcome: NodeOutcome, unit: Unit): void {
    if (index === null) this.#ended(active, node.id, outcome, unit);
    else this.#itemEnded(active, { nodeId: node.id, index }, outcome, unit);
  }

  #skip(active: ActiveRun, node: CompositionNode, unit: Unit): void {
    const { skipped } = recordSkipped(active.run, node.id);
    for (const id of [node.id, ...skipped]) putNode(this.#queue.loop, active, id, unit);
  }

  /** A list too large for its row is on disk before the unit that names it. */
  #expandOrStore(
    active: ActiveRun,
    node: CompositionNode,
    values: readonly unknown[],
    unit: Unit,
  ): boolean {
    const { results } = this.#queue.loop.options;
    const items = results.inline(values);
    if (items !== undefined) return this.#expand(active, node, { values, items }, unit);
    active.run.ready.delete(node.id);
    unit.after(() => {
      results.store(values).then(
        (stored) => {
          this.#itemsStored(active, node, { values, items: stored });
        },
        (error: unknown) => {
          this.#itemsStored(active, node, failedWith(error));
        },
      );
    });
    return true;
  }

  #itemsStored(active: ActiveRun, node: CompositionNode, list: ItemList | NodeOutcome): void {
    if (this.#queue.loop.isClosed) return;
    this.#queue.loop.run((unit) => {
      if (!isPending(active, { node, index: null })) return;
      active.run.ready.add(node.id);
      try {
        if ("state" in list) this.#ended(active, node.id, list, unit);
        else this.#expand(active, node, list, unit);
      } catch (error) {
        this.#ended(active, node.id, failedWith(error), unit);
      }
      this.advance(active, unit);
    });
  }

  #expand(
    active: ActiveRun,
    node: CompositionNode,
    { values, items }: ItemList,
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
        items,
      },
    });
    putNode(this.#queue.loop, active, node.id, unit);
    for (const id of advance.skipped) putNode(this.#queue.loop, active, id, unit);
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
    if (active.lookups.has(addressOf({ node, index }))) return;
    try {
      const call = { node, kwargs: resolveKwargs(node, scopeOf(run, node.id, index)), index };
      if (node.cache) this.#lookUp(active, call, unit);
      else this.#begin(active, call, unit);
    } catch (error) {
      this.#itemEnded(active, { nodeId: node.id, index }, failedWith(error), unit);
    }
  }

  #memberJob(
    { run }: ActiveRun,
    { node, kwargs, index }: MemberCall,
    cacheKey: string | null,
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
      member: { compositionId: run.id, nodeId: node.id, itemIndex: index },
      cacheKey,
    });
  }

  #memberEnded(entry: JobEntry, unit: Unit): void {
    const { compositionId, nodeId, itemIndex } = entry.spec;
    const active = compositionId === null ? undefined : this.active.get(compositionId);
    if (active === undefined || nodeId === null) return;
    active.members.delete(entry.spec.id);
    keepInCache(entry, unit);
    const outcome = outcomeOf(entry);
    if (itemIndex === null) this.#ended(active, nodeId, outcome, unit);
    else this.#itemEnded(active, { nodeId, index: itemIndex }, outcome, unit);
    const enqueued = this.#startReady(active, unit);
    if (requireNode(active.run, nodeId).state === "completed") {
      journalRun(active, unit, "composition_advanced", {
        completed_node: nodeId,
        enqueued_nodes: enqueued,
      });
    }
    this.#finishIfDone(active, unit);
  }

  #ended(active: ActiveRun, nodeId: string, outcome: NodeOutcome, unit: Unit): void {
    const { skipped } = recordResult(active.run, nodeId, outcome);
    for (const id of [nodeId, ...skipped]) putNode(this.#queue.loop, active, id, unit);
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
    for (const one of [index, ...advance.cancelledItems]) {
      putItem(active, { nodeId, index: one }, unit);
    }
    if (advance.nodeEnded) putNode(this.#queue.loop, active, nodeId, unit);
    for (const id of advance.skipped) putNode(this.#queue.loop, active, id, unit);
    if (outcome.state === "failed" && active.run.composition.failFast) this.#halt(active, unit);
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
}

function first(ids: ReadonlySet<string>): string | undefined {
  return ids.values().next().value;
}
