import {
  type CompositionNode,
  evaluateWhen,
  expandForEach,
  type NodeOutcome,
  pendingItemIndexes,
  recordItemStarted,
  recordSkipped,
  recordStarted,
  requireNode,
  resolveForEach,
  resolveKwargs,
  scopeOf,
} from "../composition/index.ts";
import {
  addressOf,
  journalHit,
  type MemberCall,
  type ItemAddress,
  putItem,
  putNode,
} from "./composition-rows.ts";
import { type ActiveRun, failedWith, isPending, type ItemList } from "./active-run.ts";
import type { JobEntry } from "./job.ts";
import { type CacheAnswer, ResultCache } from "./result-cache.ts";
import type { JobQueue } from "./queue.ts";
import type { Unit } from "./unit.ts";

/** Member jobs that one unit makes at most: a wide DAG must not become one commit of all its rows. */
export const STARTS_PER_UNIT = 256;

/** What becomes of a run when one of its nodes or items is started, or ends without a job. */
export interface RunKeeper {
  ended(active: ActiveRun, nodeId: string, outcome: NodeOutcome, unit: Unit): void;
  itemEnded(active: ActiveRun, address: ItemAddress, outcome: NodeOutcome, unit: Unit): void;
  /** Starts what may start now, and ends the run if nothing is left. */
  advance(active: ActiveRun, unit: Unit): void;
  /** Starts the rest of what is ready in the next unit. */
  goOnLater(active: ActiveRun, unit: Unit): void;
}

/**
 * Turns ready nodes and items into member jobs: decides `when`, expands `for_each`, binds the kwargs
 * and asks the cache first, all inside the units of the run loop.
 */
export class NodeStarter {
  readonly #queue: JobQueue;
  readonly #keeper: RunKeeper;
  readonly #cache: ResultCache;

  constructor(queue: JobQueue, keeper: RunKeeper) {
    this.#queue = queue;
    this.#keeper = keeper;
    this.#cache = new ResultCache(queue.loop.options);
  }

  /** True if the node has a job, or several, now. */
  start(active: ActiveRun, node: CompositionNode, unit: Unit): boolean {
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
      this.#keeper.ended(active, node.id, failedWith(error), unit);
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
      this.#keeper.advance(active, unit);
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
    if (index === null) this.#keeper.ended(active, node.id, outcome, unit);
    else this.#keeper.itemEnded(active, { nodeId: node.id, index }, outcome, unit);
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
        if ("state" in list) this.#keeper.ended(active, node.id, list, unit);
        else this.#expand(active, node, list, unit);
      } catch (error) {
        this.#keeper.ended(active, node.id, failedWith(error), unit);
      }
      this.#keeper.advance(active, unit);
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
    // Items that the cache is being asked about are pending, and begin when it has answered.
    const indexes = pendingItemIndexes(run, node.id).filter(
      (index) => !active.lookups.has(addressOf({ node, index })),
    );
    if (indexes.length > STARTS_PER_UNIT) this.#keeper.goOnLater(active, unit);
    for (const index of indexes.slice(0, STARTS_PER_UNIT)) {
      // A failure under fail_fast may have cancelled the rest meanwhile.
      if (requireNode(run, node.id).items?.runs[index]?.state !== "pending") continue;
      this.#startItem(active, node, index, unit);
    }
  }

  #startItem(active: ActiveRun, node: CompositionNode, index: number, unit: Unit): void {
    const { run } = active;
    try {
      const call = { node, kwargs: resolveKwargs(node, scopeOf(run, node.id, index)), index };
      if (node.cache) this.#lookUp(active, call, unit);
      else this.#begin(active, call, unit);
    } catch (error) {
      this.#keeper.itemEnded(active, { nodeId: node.id, index }, failedWith(error), unit);
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
}
