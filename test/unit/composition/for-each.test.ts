import { describe, expect, test } from "vitest";
import type { JobError } from "../../../src/errors/index.ts";
import {
  allTerminal,
  cancelPendingItems,
  composition,
  deriveTerminalStatus,
  expandForEach,
  item,
  itemIndex,
  MAX_ITEMS,
  newRun,
  pendingItemIndexes,
  recordItemResult,
  recordItemStarted,
  ref,
  resolveForEach,
  resolveKwargs,
  scopeOf,
  type CompositionRun,
} from "../../../src/composition/index.ts";

const OUT_OF_MEMORY: JobError = {
  category: "resource",
  code: "WORKER_OOM",
  message: "out of memory",
  retriable: false,
  original_exc_repr: "",
};

function expandedRun(values: readonly unknown[], failFast = true): CompositionRun {
  const spec = composition(
    {
      each: {
        capability: "c",
        forEach: values,
        kwargs: { value: item("name"), position: itemIndex() },
      },
      fold: { capability: "c", kwargs: { all: ref("each") } },
    },
    { failFast },
  );
  const run = newRun(spec, "run");
  const [node] = spec.nodes;
  if (node === undefined) throw new TypeError("unreachable");
  expandForEach(run, "each", resolveForEach(node, scopeOf(run, "each")));
  return run;
}

const at = (index: number): { nodeId: string; index: number } => ({ nodeId: "each", index });

describe("for_each", () => {
  test("calls once for each item and gives a list in input order, whatever ends first", () => {
    const run = expandedRun([{ name: "a" }, { name: "b" }]);
    expect(pendingItemIndexes(run, "each")).toEqual([0, 1]);
    const node = run.nodes.get("each");
    expect(node && resolveKwargs(node, scopeOf(run, "each", 1))).toEqual({
      value: "b",
      position: 1,
    });
    recordItemStarted(run, at(0), "job-0");
    recordItemStarted(run, at(1), "job-1");
    expect(() => recordItemStarted(run, at(1), "job-2")).toThrow(/has started/u);
    expect(recordItemResult(run, at(1), { state: "completed", result: "B" }).nodeEnded).toBe(false);
    expect(recordItemResult(run, at(0), { state: "completed", result: "A" })).toEqual({
      ready: ["fold"],
      skipped: [],
      cancelledItems: [],
      nodeEnded: true,
    });
    expect(run.nodeRuns.get("each")?.result).toEqual(["A", "B"]);
  });

  test("over an empty list completes with an empty list", () => {
    const run = expandedRun([]);
    expect(run.nodeRuns.get("each")).toMatchObject({ state: "completed", result: [] });
    expect([...run.ready]).toEqual(["fold"]);
  });

  test("under fail_fast starts nothing after a failure and fails when the running ones have ended", () => {
    const run = expandedRun([1, 2, 3]);
    recordItemStarted(run, at(0), "job-0");
    recordItemStarted(run, at(1), "job-1");
    const failure = recordItemResult(run, at(1), { state: "failed", error: OUT_OF_MEMORY });
    expect(failure).toMatchObject({ cancelledItems: [2], nodeEnded: false });
    const last = recordItemResult(run, at(0), { state: "completed", result: 1 });
    expect(last).toMatchObject({ nodeEnded: true, skipped: ["fold"] });
    expect(run.nodeRuns.get("each")).toMatchObject({ state: "failed", error: OUT_OF_MEMORY });
    expect(deriveTerminalStatus(run)).toBe("failed");
  });

  test("in a best-effort run puts a failure into the list", () => {
    const run = expandedRun([1, 2], false);
    recordItemResult(run, at(0), { state: "failed", error: OUT_OF_MEMORY });
    recordItemResult(run, at(1), { state: "completed", result: 2 });
    expect(run.nodeRuns.get("each")).toMatchObject({
      state: "completed",
      result: [{ __error__: OUT_OF_MEMORY }, 2],
    });
  });

  test("is cancelled when an item is", () => {
    const run = expandedRun([1, 2], false);
    recordItemStarted(run, at(0), "job-0");
    expect(cancelPendingItems(run, "each")).toMatchObject({
      cancelledItems: [1],
      nodeEnded: false,
    });
    recordItemResult(run, at(0), { state: "cancelled", error: undefined });
    expect(run.nodeRuns.get("each")?.state).toBe("cancelled");
    expect(allTerminal(run)).toBe(true);
    expect(() => recordItemResult(run, at(0), { state: "completed", result: 1 })).toThrow(/ended/u);
  });

  test("continues with the items that had ended before a crash", () => {
    const spec = composition({ each: { capability: "c", forEach: [1, 2, 3] } });
    const run = newRun(spec, "run");
    expandForEach(
      run,
      "each",
      [1, 2, 3],
      [
        { index: 0, state: "completed", result: "A", jobId: "job-0" },
        { index: 2, state: "completed", result: "C" },
      ],
    );
    expect(pendingItemIndexes(run, "each")).toEqual([1]);
    recordItemResult(run, at(1), { state: "completed", result: "B" });
    expect(run.nodeRuns.get("each")?.result).toEqual(["A", "B", "C"]);
  });

  test("refuses what is no list and what is too long", () => {
    const run = newRun(composition({ each: { capability: "c", forEach: [] } }), "run");
    const values = Array.from({ length: MAX_ITEMS + 1 }, () => 0);
    expect(() => expandForEach(run, "each", values)).toThrow(/10001 items, more than 10000/u);
    const source = composition({
      a: { capability: "c" },
      each: { capability: "c", forEach: ref("a") },
    });
    const node = source.nodes[1];
    expect(
      () => node && resolveForEach(node, { upstream: () => ({ kind: "value", value: "text" }) }),
    ).toThrow(/Node "each": for_each is not a list but a string/u);
  });
});
