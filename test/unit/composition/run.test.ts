import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  allTerminal,
  cancelPending,
  composition,
  deriveTerminalStatus,
  newRun,
  readyNodes,
  recordResult,
  recordSkipped,
  recordStarted,
  ref,
  restoreRun,
  resultsByNode,
  type CompositionOptions,
  type CompositionRun,
  type NodeSpec,
  type NodeState,
} from "../../../src/composition/index.ts";

function runOf(
  needs: Readonly<Record<string, readonly string[]>>,
  options: CompositionOptions = {},
): CompositionRun {
  const nodes = Object.entries(needs).map(([id, upstream]): [string, NodeSpec] => [
    id,
    {
      capability: "c",
      kwargs: {
        inputs: upstream.map((name) =>
          name.endsWith("?") ? ref(name.slice(0, -1), { optional: true }) : ref(name),
        ),
      },
    },
  ]);
  return newRun(composition(Object.fromEntries(nodes), options), "run");
}

const state = (run: CompositionRun, id: string): NodeState | undefined =>
  run.nodeRuns.get(id)?.state;

const complete = (run: CompositionRun, id: string): readonly string[] =>
  recordResult(run, id, { state: "completed", result: id }).ready;

describe("a run", () => {
  test("starts with the nodes that need nothing and frees a node with its last input", () => {
    const run = runOf({ a: [], b: [], c: ["a", "b"], d: ["c"] });
    expect(readyNodes(run)).toEqual(["a", "b"]);
    recordStarted(run, "a", "job-a");
    recordStarted(run, "b", "job-b");
    expect(readyNodes(run)).toEqual([]);
    expect(complete(run, "b")).toEqual([]);
    expect(complete(run, "a")).toEqual(["c"]);
    expect(complete(run, "c")).toEqual(["d"]);
    expect(complete(run, "d")).toEqual([]);
    expect(allTerminal(run)).toBe(true);
    expect(deriveTerminalStatus(run)).toBe("completed");
    expect(resultsByNode(run)).toEqual({ a: "a", b: "b", c: "c", d: "d" });
  });

  test("of an empty composition is complete at once", () => {
    const run = runOf({});
    expect(allTerminal(run)).toBe(true);
    expect(deriveTerminalStatus(run)).toBe("completed");
  });

  test("skips everything behind a failure and nothing else", () => {
    const run = runOf({ a: [], b: ["a"], c: ["b"], other: [], last: ["other"] });
    const advance = recordResult(run, "a", { state: "failed", error: undefined });
    expect(advance).toEqual({ ready: [], skipped: ["b", "c"] });
    expect(run.nodeRuns.get("c")?.skipCause).toBe("upstream");
    expect(readyNodes(run)).toEqual(["other"]);
    expect(cancelPending(run)).toEqual(["other", "last"]);
    expect(deriveTerminalStatus(run)).toBe("failed");
  });

  test("lets an optional reference accept what a `when` skipped, but not what failed", () => {
    const skippedByWhen = runOf({ a: [], b: ["a"], c: ["b?"], d: ["a"] });
    expect(recordSkipped(skippedByWhen, "a")).toEqual({ ready: ["c"], skipped: ["b", "d"] });
    expect(skippedByWhen.nodeRuns.get("b")?.skipCause).toBe("when");

    const failed = runOf({ a: [], b: ["a"], c: ["b?"] });
    const advance = recordResult(failed, "a", { state: "failed", error: undefined });
    expect(advance.skipped).toEqual(["b", "c"]);
  });

  test("refuses to start what is not ready and to end what has ended", () => {
    const run = runOf({ a: [], b: ["a"] });
    expect(() => recordStarted(run, "b", "job")).toThrow(/not ready/u);
    complete(run, "a");
    expect(() => complete(run, "a")).toThrow(/ended/u);
    expect(() => recordSkipped(run, "a")).toThrow(/not pending/u);
    expect(() => complete(run, "nobody")).toThrow(/no node/u);
  });

  test.each([
    [
      "the user's cancel is above a failure",
      { cancel: true, failed: 1, cancelled: 0 },
      "cancelled",
    ],
    ["a failure is above its housekeeping", { cancel: false, failed: 1, cancelled: 1 }, "failed"],
    ["a member cancelled by itself", { cancel: false, failed: 0, cancelled: 1 }, "cancelled"],
    ["everything completed", { cancel: false, failed: 0, cancelled: 0 }, "completed"],
  ])("derives its status: %s", (_name, { cancel, failed, cancelled }, status) => {
    const run = runOf({ a: [], b: [], c: [] });
    run.cancelRequested = cancel;
    if (failed > 0) recordResult(run, "a", { state: "failed", error: undefined });
    if (cancelled > 0) recordResult(run, "b", { state: "cancelled", error: undefined });
    for (const id of readyNodes(run)) complete(run, id);
    expect(deriveTerminalStatus(run)).toBe(status);
  });

  test("that is best effort completes with failed members", () => {
    const run = runOf({ a: [], b: [] }, { failFast: false });
    recordResult(run, "a", { state: "failed", error: undefined });
    complete(run, "b");
    expect(deriveTerminalStatus(run)).toBe("completed");
  });

  test("rejects a cycle, an unknown id and an id used twice", () => {
    expect(() => runOf({ a: ["b"], b: ["a"] })).toThrow(/a cycle: a → b/u);
    expect(() => runOf({ a: ["x"] })).toThrow(/refers to "x"/u);
    const twice = composition({ a: { capability: "c" } });
    expect(() => newRun({ ...twice, nodes: [...twice.nodes, ...twice.nodes] }, "r")).toThrow(
      /same id/u,
    );
  });

  test("advances a long chain by the edges it touches, and finds no cycle in it", () => {
    const length = 10_000;
    const chain = Object.fromEntries(
      Array.from({ length }, (_, index) => [`n${index}`, index === 0 ? [] : [`n${index - 1}`]]),
    );
    const run = runOf(chain);
    let steps = 0;
    for (let ready = readyNodes(run); ready[0] !== undefined; ready = complete(run, ready[0])) {
      steps += 1;
      expect(run.ready.size).toBe(1);
    }
    expect(steps).toBe(length);
    expect(allTerminal(run)).toBe(true);
  });
});

describe("a restored run", () => {
  test("keeps what ended, makes the interrupted pending again and finds who is ready", () => {
    const { composition: spec } = runOf({ a: [], b: ["a"], c: ["b"], d: ["a"] });
    const { run, skipped } = restoreRun(spec, "run", [
      { id: "a", state: "completed", result: 1, jobId: "job-a" },
    ]);
    expect(skipped).toEqual([]);
    expect(readyNodes(run)).toEqual(["b", "d"]);
    expect(state(run, "c")).toBe("pending");
    expect(run.nodeRuns.get("a")).toMatchObject({ result: 1, jobId: "job-a" });
  });

  test("skips what a stored failure makes unrunnable", () => {
    const { composition: spec } = runOf({ a: [], b: ["a"], c: ["b"] });
    const { skipped } = restoreRun(spec, "run", [{ id: "a", state: "failed" }]);
    expect(skipped).toEqual(["b", "c"]);
  });

  test("counts a node that is skipped on the way once only", () => {
    const { composition: spec } = runOf({ a: [], b: ["a"], x: [], c: ["b?", "x"] });
    const { run } = restoreRun(spec, "run", [{ id: "a", state: "skipped", skipCause: "when" }]);
    expect(state(run, "b")).toBe("skipped");
    expect(readyNodes(run)).toEqual(["x"]);
    expect(complete(run, "x")).toEqual(["c"]);
  });
});

interface Plan {
  readonly needs: Readonly<Record<string, readonly string[]>>;
  /** How each node ends, by position. */
  readonly outcomes: readonly ("completed" | "failed" | "cancelled" | "when")[];
  readonly failFast: boolean;
  readonly userCancel: boolean;
  /** Picks among the nodes that could be next. */
  readonly choices: readonly number[];
}

const plans: fc.Arbitrary<Plan> = fc.integer({ min: 0, max: 14 }).chain((count) =>
  fc.record({
    needs: fc
      .tuple(
        ...Array.from({ length: count }, (_, index) =>
          fc.array(fc.tuple(fc.nat({ max: Math.max(0, index - 1) }), fc.boolean()), {
            maxLength: index === 0 ? 0 : 4,
          }),
        ),
      )
      .map((lists) =>
        Object.fromEntries(
          lists.map((list, index) => [
            `n${index}`,
            list.map(([target, optional]) => `n${target}${optional ? "?" : ""}`),
          ]),
        ),
      ),
    outcomes: fc.array(
      fc.oneof(
        { weight: 5, arbitrary: fc.constant("completed" as const) },
        fc.constantFrom("failed" as const, "cancelled" as const, "when" as const),
      ),
      { minLength: count, maxLength: count },
    ),
    failFast: fc.boolean(),
    userCancel: fc.boolean(),
    choices: fc.array(fc.nat(), { minLength: 40, maxLength: 40 }),
  }),
);

interface Trace {
  readonly run: CompositionRun;
  readonly started: string[];
}

/** Plays a plan as the queue would: start what is ready, end what runs, in an order drawn. */
function play(plan: Plan): Trace {
  const run = runOf(plan.needs, { failFast: plan.failFast });
  const running: string[] = [];
  const started: string[] = [];
  run.cancelRequested = plan.userCancel;
  for (let step = 0; !allTerminal(run); step += 1) {
    const ready = readyNodes(run);
    const choice = plan.choices[step % plan.choices.length] ?? 0;
    const pick = choice % (ready.length + running.length);
    const toStart = ready[pick];
    if (toStart === undefined) {
      const [ending = ""] = running.splice(pick - ready.length, 1);
      end(run, ending, plan);
    } else if (outcomeOf(plan, toStart) === "when") {
      recordSkipped(run, toStart);
    } else {
      expectInputs(run, toStart);
      recordStarted(run, toStart, `job-${toStart}`);
      started.push(toStart);
      running.push(toStart);
    }
  }
  return { run, started };
}

function outcomeOf(plan: Plan, id: string): Plan["outcomes"][number] {
  return plan.outcomes[Number(id.slice(1))] ?? "completed";
}

function expectInputs(run: CompositionRun, id: string): void {
  for (const needed of run.dependencies.get(id) ?? []) {
    const isAbsent = run.nodeRuns.get(needed)?.skipCause === "when";
    expect(state(run, needed) === "completed" || isAbsent).toBe(true);
  }
}

function end(run: CompositionRun, id: string, plan: Plan): void {
  const outcome = outcomeOf(plan, id);
  if (outcome === "when") recordSkipped(run, id);
  else if (outcome === "completed") recordResult(run, id, { state: outcome, result: id });
  else recordResult(run, id, { state: outcome, error: undefined });
  if (outcome === "failed" && plan.failFast) cancelPending(run);
}

describe("any composition", () => {
  test("ends; nothing runs before its inputs or twice; the status follows the rules", () => {
    fc.assert(
      fc.property(plans, (plan) => {
        const { run, started } = play(plan);
        expect(new Set(started).size).toBe(started.length);
        const states = new Set([...run.nodeRuns.values()].map((node) => node.state));
        const has = (wanted: NodeState): boolean => states.has(wanted);
        const expected =
          (plan.userCancel && "cancelled") ||
          (plan.failFast && has("failed") && "failed") ||
          (has("cancelled") && "cancelled") ||
          "completed";
        expect(deriveTerminalStatus(run)).toBe(expected);
        for (const node of run.nodeRuns.values()) {
          if (node.state !== "skipped" || node.skipCause === "when") continue;
          const upstream = [...(run.dependencies.get(node.id) ?? [])].map((id) => state(run, id));
          expect(upstream.some((one) => one !== "completed")).toBe(true);
        }
      }),
      { numRuns: 500 },
    );
  });

  test("restored at any point has the same nodes left to do", () => {
    fc.assert(
      fc.property(plans, fc.nat({ max: 30 }), (plan, stop) => {
        const run = runOf(plan.needs, { failFast: plan.failFast });
        for (let step = 0; step < stop && !allTerminal(run); step += 1) {
          const [next = ""] = readyNodes(run);
          end(run, next, plan);
        }
        const stored = [...run.nodeRuns.values()].flatMap(({ id, state, skipCause }) =>
          state === "pending" || state === "running" ? [] : [{ id, state, skipCause }],
        );
        const { run: restored, skipped } = restoreRun(run.composition, "run", stored);
        expect(skipped).toEqual([]);
        expect(new Set(readyNodes(restored))).toEqual(new Set(readyNodes(run)));
        expect(restored.tally).toEqual(run.tally);
        for (const [id, waiting] of run.waitingFor) {
          if (state(run, id) === "pending") expect(restored.waitingFor.get(id)).toBe(waiting);
        }
      }),
      { numRuns: 300 },
    );
  });
});
