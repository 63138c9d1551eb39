import { CjmError, type JobError } from "../errors/index.ts";
import { recordResult, requireNode, setState } from "./run.ts";
import type {
  Advance,
  CompositionRun,
  ForEachRun,
  ItemRun,
  ItemState,
  NodeOutcome,
  NodeRun,
} from "./types.ts";

/** Most items that one `for_each` may expand to. */
export const MAX_ITEMS = 10_000;

/** What one item's end changed. */
export interface ItemAdvance extends Advance {
  /** Items that will not start because this one failed. */
  readonly cancelledItems: readonly number[];
  /** The node itself ended with this item. */
  readonly nodeEnded: boolean;
}

/** An item whose run is continued; only terminal ones need be given. */
export interface RestoredItem {
  readonly index: number;
  readonly state: Exclude<ItemState, "pending" | "running">;
  readonly jobId?: string | undefined;
  readonly result?: unknown;
  readonly error?: JobError | undefined;
}

const UNCHANGED: ItemAdvance = { ready: [], skipped: [], cancelledItems: [], nodeEnded: false };

/**
 * Expands a ready `for_each` node to its items, which are all pending then; store `values` with it.
 * A node without items, or whose items have all ended before, ends here.
 *
 * @throws {CjmError} `COMPOSITION_BINDING` for more than {@link MAX_ITEMS} values.
 */
export function expandForEach(
  run: CompositionRun,
  nodeId: string,
  values: readonly unknown[],
  restored: Iterable<RestoredItem> = [],
): ItemAdvance {
  const node = requireNode(run, nodeId);
  if (!run.ready.has(nodeId)) throw new TypeError(`Node "${nodeId}" is not ready to expand`);
  if (values.length > MAX_ITEMS) throw tooMany(nodeId, values.length);
  const items = pendingItems(values);
  node.items = items;
  for (const { index, state, ...rest } of restored) {
    const item = requireItem(items, nodeId, index);
    setItemState(items, item, state);
    Object.assign(item, rest);
  }
  setState(run, node, "running");
  return endIfDone(run, node, items);
}

/** Marks an item running and binds it to its member job. */
export function recordItemStarted(
  run: CompositionRun,
  { nodeId, index }: ItemAddress,
  jobId: string,
): void {
  const items = requireItems(requireNode(run, nodeId));
  const item = requireItem(items, nodeId, index);
  if (item.state !== "pending") throw new TypeError(`Item ${index} of "${nodeId}" has started`);
  item.jobId = jobId;
  setItemState(items, item, "running");
}

/** Which item of which node. */
export interface ItemAddress {
  readonly nodeId: string;
  readonly index: number;
}

/**
 * Records how an item ended.
 *
 * The node ends with its last item. Its result is the list of the items' results in input order.
 * Under `fail_fast` the first failure keeps the rest from starting and fails the node; else a
 * failed item is `{"__error__": …}` in that list.
 */
export function recordItemResult(
  run: CompositionRun,
  { nodeId, index }: ItemAddress,
  outcome: NodeOutcome,
): ItemAdvance {
  const node = requireNode(run, nodeId);
  const items = requireItems(node);
  const item = requireItem(items, nodeId, index);
  if (item.state !== "pending" && item.state !== "running") {
    throw new TypeError(`Item ${index} of "${nodeId}" has ended already`);
  }
  if (outcome.state === "completed") item.result = outcome.result;
  else item.error = outcome.error;
  setItemState(items, item, outcome.state);
  const halts = outcome.state === "failed" && run.composition.failFast;
  const cancelledItems = halts ? haltItems(items) : [];
  return { ...endIfDone(run, node, items), cancelledItems };
}

/**
 * Cancels the items of a running node that have not started. The node ends here if none is
 * running.
 */
export function cancelPendingItems(run: CompositionRun, nodeId: string): ItemAdvance {
  const node = requireNode(run, nodeId);
  const items = requireItems(node);
  const cancelledItems = haltItems(items);
  return { ...endIfDone(run, node, items), cancelledItems };
}

/** Positions of the items that may start now, in input order. */
export function pendingItemIndexes(run: CompositionRun, nodeId: string): readonly number[] {
  const runs = requireNode(run, nodeId).items?.runs ?? [];
  return runs.flatMap((item, index) => (item.state === "pending" ? [index] : []));
}

function haltItems(items: ForEachRun): readonly number[] {
  return items.runs.flatMap((item, index) => {
    if (item.state !== "pending") return [];
    setItemState(items, item, "cancelled");
    return [index];
  });
}

function endIfDone(run: CompositionRun, node: NodeRun, items: ForEachRun): ItemAdvance {
  if (items.tally.pending > 0 || items.tally.running > 0) return UNCHANGED;
  const advance = recordResult(run, node.id, outcomeOf(run, items));
  return { ...advance, cancelledItems: [], nodeEnded: true };
}

function outcomeOf(run: CompositionRun, items: ForEachRun): NodeOutcome {
  const firstOf = (state: ItemState): ItemRun | undefined =>
    items.runs.find((item) => item.state === state);
  if (run.composition.failFast && items.tally.failed > 0) {
    return { state: "failed", error: firstOf("failed")?.error };
  }
  if (items.tally.cancelled > 0) return { state: "cancelled", error: firstOf("cancelled")?.error };
  return {
    state: "completed",
    result: items.runs.map((item) =>
      item.state === "failed" ? { __error__: item.error } : item.result,
    ),
  };
}

function pendingItems(values: readonly unknown[]): ForEachRun {
  return {
    values,
    runs: values.map(() => ({
      state: "pending",
      jobId: undefined,
      result: undefined,
      error: undefined,
    })),
    tally: { pending: values.length, running: 0, completed: 0, failed: 0, cancelled: 0 },
  };
}

function setItemState(items: ForEachRun, item: ItemRun, state: ItemState): void {
  items.tally[item.state] -= 1;
  items.tally[state] += 1;
  item.state = state;
}

function requireItems(node: NodeRun): ForEachRun {
  if (node.items === undefined) throw new TypeError(`Node "${node.id}" has not been expanded`);
  return node.items;
}

function requireItem(items: ForEachRun, nodeId: string, index: number): ItemRun {
  const item = items.runs[index];
  if (item === undefined) throw new TypeError(`Node "${nodeId}" has no item ${index}`);
  return item;
}

function tooMany(nodeId: string, count: number): CjmError {
  return new CjmError(
    "COMPOSITION_BINDING",
    `Node "${nodeId}": for_each has ${count} items, more than ${MAX_ITEMS}`,
    { details: { node: nodeId, path: "for_each" }, fieldsInvalid: ["for_each"] },
  );
}
