import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  type AdapterLike,
  contenders,
  judge,
  planMerges,
} from "../../../workers/evaluation/evolution.ts";

const recipes = ["ties", "dare_ties"].map((method) => ({ method, density: 0.5, seed: 0 }));
const RULES = { minActive: 5, topK: 3, recipes };

function adapter(id: string, more: Partial<AdapterLike> = {}): AdapterLike {
  return {
    id,
    task_type: "t",
    base_model_id: "base",
    file_path: `/adapters/${id}`,
    fitness_score: 0.5,
    is_archived: false,
    parent_ids: [],
    method: null,
    ...more,
  };
}

const five = ["a", "b", "c", "d", "e"].map((id, at) => adapter(id, { fitness_score: at / 10 }));

describe("what is merged", () => {
  test("is the three fittest of a task with five active adapters, once by each method", () => {
    const { merges, decisions } = planMerges(five, RULES);
    expect(merges.map(({ method, parent_ids }) => [method, parent_ids])).toEqual([
      ["ties", ["e", "d", "c"]],
      ["dare_ties", ["e", "d", "c"]],
    ]);
    expect(merges[0]?.adapters).toEqual([
      { path: "/adapters/e" },
      { path: "/adapters/d" },
      { path: "/adapters/c" },
    ]);
    expect(decisions[0]).toMatchObject({
      decision: "merge",
      evidence: { active: 5, chosen: [{ id: "e", fitness: 0.4 }, {}, {}] },
    });
  });

  test("is never merged again, in whatever order and though the merge was archived", () => {
    const merged = adapter("m", {
      parent_ids: ["c", "e", "d"],
      method: "ties",
      is_archived: true,
      fitness_score: null,
    });
    const { merges, decisions } = planMerges([...five, merged], RULES);
    expect(merges.map(({ method }) => method)).toEqual(["dare_ties"]);
    expect(decisions.map(({ decision }) => decision)).toEqual(["no_merge", "merge"]);
  });

  test.each([
    ["four are active", five.slice(1), "too few active"],
    [
      "one is evaluated",
      five.map((one) => ({ ...one, fitness_score: one.id === "a" ? 0.4 : null })),
      "too few evaluated",
    ],
    [
      "all have bases of their own",
      five.map((one) => ({ ...one, base_model_id: one.id })),
      "of one base",
    ],
  ])("is nothing where %s, and the reason is told", (_, records, reason) => {
    const { merges, decisions } = planMerges(records, RULES);
    expect(merges).toEqual([]);
    expect(decisions[0]).toMatchObject({ decision: "no_merge", subject: "t" });
    expect(decisions[0]?.reason).toContain(reason);
  });

  test("never names a parent that is archived, unevaluated or of another task or base", () => {
    const any = fc.record({
      task_type: fc.constantFrom("t", "u"),
      base_model_id: fc.constantFrom("base", "other"),
      fitness_score: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
      is_archived: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(any, { maxLength: 30 }), (parts) => {
        const records = parts.map((part, at) => adapter(String(at), part));
        const byId = new Map(records.map((record) => [record.id, record]));
        for (const { task_type: taskType, parent_ids: ids } of planMerges(records, RULES).merges) {
          const parents = ids.map((id) => byId.get(id));
          expect(ids.length).toBeGreaterThanOrEqual(2);
          expect(new Set(ids).size).toBe(ids.length);
          expect(new Set(parents.map((one) => one?.base_model_id)).size).toBe(1);
          for (const parent of parents) {
            expect(parent).toMatchObject({ task_type: taskType, is_archived: false });
            expect(parent?.fitness_score).not.toBeNull();
          }
        }
      }),
    );
  });
});

describe("a verdict", () => {
  const scored = (id: string, right: string): never =>
    ({
      id,
      pass_rate: right.split("").filter((mark) => mark === "1").length / right.length,
      tasks: right.split("").map((mark, at) => ({ task: String(at), n: 1, c: Number(mark) })),
    }) as never;
  const merged = [
    adapter("ties", { parent_ids: ["a", "b"], method: "ties", fitness_score: null }),
    adapter("dare", { parent_ids: ["a", "b"], method: "dare_ties", fitness_score: null }),
  ];
  const rules = { pruneBelow: 0.3, confidence: 0.95, certain: false };

  test("promotes the best merge where it beats its best parent", () => {
    const scores = [
      scored("a", "1100"),
      scored("b", "0010"),
      scored("ties", "1110"),
      scored("dare", "1100"),
    ];
    const verdict = judge(merged, { scores, population: [] }, rules);
    expect(verdict.promote).toMatchObject([
      {
        id: "ties",
        domain: "t",
        evidence: { difference: 0.25, pass_rate: 0.75, best_parent: { id: "a", pass_rate: 0.5 } },
      },
    ]);
    expect(verdict.decisions.map(({ decision }) => decision)).toEqual(["promote", "keep"]);
    const certain = judge(merged, { scores, population: [] }, { ...rules, certain: true });
    expect(certain.promote).toEqual([]);
  });

  test("promotes nothing that is only as good", () => {
    const scores = ["a", "b", "ties", "dare"].map((id) => scored(id, "1100"));
    const verdict = judge(merged, { scores, population: [] }, rules);
    expect(verdict.promote).toEqual([]);
    expect(verdict.decisions.map(({ decision }) => decision)).toEqual(["keep", "keep"]);
  });

  test("prunes strictly below the limit, and never what was not evaluated", () => {
    const population = [
      adapter("at", { fitness_score: 0.3 }),
      adapter("below", { fitness_score: 0.29 }),
      adapter("unknown", { fitness_score: null }),
      adapter("gone", { fitness_score: 0.1, is_archived: true }),
    ];
    const { archive } = judge([], { scores: [], population }, rules);
    expect(archive).toEqual([
      {
        id: "below",
        reason: "its fitness is below 0.3",
        evidence: { fitness: 0.29, prune_below: 0.3 },
      },
    ]);
  });

  test("is none without the held-out score of a parent", () => {
    expect(() =>
      judge(merged, { scores: [scored("ties", "1"), scored("dare", "1")], population: [] }, rules),
    ).toThrow('no held-out score of "a"');
  });
});

describe("contenders", () => {
  test("are merged adapters and their parents, each once", () => {
    const merged = [
      adapter("x", { parent_ids: ["a", "b"] }),
      adapter("y", { parent_ids: ["a", "b"] }),
    ];
    expect(contenders(merged, five).map(({ id }) => id)).toEqual(["x", "a", "b", "y"]);
    expect(() => contenders([adapter("x", { parent_ids: ["?"] })], five)).toThrow('record of "?"');
  });
});
