import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { compare, normalQuantile } from "../../../workers/evaluation/compare.ts";
import { diversity, fitness } from "../../../workers/evaluation/fitness.ts";
import {
  adapterQuality,
  generalizationDelta,
  killSwitch,
  round2Gate,
} from "../../../workers/evaluation/gates.ts";
import { meanPassAtK, passAtK, passRate } from "../../../workers/evaluation/pass-at-k.ts";

const tallyOf = (task: string, c: number, n = 1): { task: string; n: number; c: number } => {
  return { task, n, c };
};
const rightOf = (max: number): fc.Arbitrary<{ n: number; c: number }> =>
  fc
    .integer({ min: 1, max })
    .chain((n) => fc.record({ n: fc.constant(n), c: fc.integer({ min: 0, max: n }) }));

describe("pass@k", () => {
  test("gives the published values", () => {
    expect(passAtK({ n: 10, c: 3 }, 5)).toBeCloseTo(0.916667, 6);
    expect(passAtK({ n: 100, c: 85 }, 1)).toBeCloseTo(0.85, 12);
    expect(passAtK({ n: 3, c: 3 }, 2)).toBe(1);
  });

  test.each([
    ["no answers", { n: 0, c: 0 }, 1],
    ["fewer answers than k", { n: 3, c: 0 }, 5],
    ["fewer answers than k, all of them right", { n: 3, c: 3 }, 5],
    ["more right answers than answers", { n: 3, c: 4 }, 1],
    ["a k of 0", { n: 3, c: 1 }, 0],
    ["half an answer", { n: 3, c: 1.5 }, 1],
  ])("has no value for %s", (_, tally, k) => {
    expect(() => passAtK(tally, k)).toThrow(/pass@|right answers/u);
  });

  test("is the share of draws of k that hold a right answer, counted out", () => {
    fc.assert(
      fc.property(rightOf(9), fc.integer({ min: 1, max: 9 }), ({ n, c }, k) => {
        fc.pre(k <= n);
        let [draws, passing] = [0, 0];
        for (let draw = 0; draw < 2 ** n; draw += 1) {
          const bits = Array.from({ length: n }, (__, bit) => (draw >> bit) & 1);
          if (bits.filter((bit) => bit === 1).length !== k) continue;
          draws += 1;
          if (bits.slice(0, c).includes(1)) passing += 1;
        }
        expect(passAtK({ n, c }, k)).toBeCloseTo(passing / draws, 12);
      }),
      { numRuns: 60 },
    );
  });

  test("grows with k and with the right answers, stays within 0 and 1", () => {
    fc.assert(
      fc.property(rightOf(200), fc.integer({ min: 1, max: 199 }), ({ n, c }, k) => {
        fc.pre(k < n);
        const value = passAtK({ n, c }, k);
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThanOrEqual(1);
        expect(passAtK({ n, c }, k + 1)).toBeGreaterThanOrEqual(value - 1e-12);
        if (c < n) expect(passAtK({ n, c: c + 1 }, k)).toBeGreaterThanOrEqual(value - 1e-12);
        expect(passAtK({ n, c }, 1)).toBeCloseTo(c / n, 12);
      }),
    );
  });

  test("over tasks counts each once, and names those it cannot be estimated for", () => {
    expect(meanPassAtK([tallyOf("a", 10, 10), tallyOf("b", 0, 1)], 1).value).toBe(0.5);
    expect(meanPassAtK([tallyOf("a", 4, 4), tallyOf("b", 2, 2)], 3)).toEqual({
      k: 3,
      value: null,
      too_few: ["b"],
    });
    expect(meanPassAtK([], 1).value).toBeNull();
    expect(passRate([])).toBeNull();
  });
});

describe("fitness", () => {
  test("is 0.7 of the pass rate and 0.3 of the diversity", () => {
    expect(fitness(0.85, 0.3)).toBeCloseTo(0.685, 12);
    expect(fitness(1, 1)).toBeCloseTo(1, 12);
    expect(fitness(0, 0)).toBe(0);
  });

  test("counts as diverse what others get wrong, not what it gets wrong itself", () => {
    const own = [tallyOf("a", 1), tallyOf("b", 1), tallyOf("c", 0), tallyOf("d", 0)];
    const peer = [tallyOf("a", 1), tallyOf("b", 0), tallyOf("c", 1), tallyOf("d", 0)];
    expect(diversity(own, [peer])).toBe(0.25);
    expect(diversity(own, [peer, own])).toBe(0.125);
    expect(diversity(own, [])).toBe(0.5);
    expect(diversity([tallyOf("a", 0)], [peer])).toBe(0);
    expect(diversity(peer, [peer])).toBe(0);
    expect(diversity([], [peer])).toBe(0);
  });

  test("is never more diverse than it is right, and never more with one more peer that is at least as good", () => {
    const outcomes = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 6, maxLength: 6 });
    const tallies = (right: readonly number[]): ReturnType<typeof tallyOf>[] =>
      right.map((c, at) => tallyOf(String(at), c, 4));
    fc.assert(
      fc.property(outcomes, fc.array(outcomes, { maxLength: 4 }), (own, peers) => {
        const value = diversity(tallies(own), peers.map(tallies));
        expect(value).toBeGreaterThanOrEqual(0);
        expect(value).toBeLessThanOrEqual((passRate(tallies(own)) ?? 0) + 1e-12);
        const withPerfect = [...peers, [4, 4, 4, 4, 4, 4]].map(tallies);
        expect(diversity(tallies(own), withPerfect)).toBeLessThanOrEqual(value + 1e-12);
      }),
    );
  });
});

describe("gates", () => {
  test("the generalization delta is negative for what overfits", () => {
    expect(generalizationDelta(0.8, 0.6)).toBeCloseTo(-0.2, 12);
  });

  test("the quality rewards and punishes by a tenth of the delta", () => {
    expect(adapterQuality(0.5, 0.2)).toBeCloseTo(0.52, 12);
    expect(adapterQuality(0.5, -0.2)).toBeCloseTo(0.48, 12);
    expect(adapterQuality(0.5, null)).toBe(0.5);
    expect(adapterQuality(1, 1)).toBe(1);
    expect(adapterQuality(0, -1)).toBe(0);
  });

  test("the kill switch wants a gain, also over nothing", () => {
    expect(killSwitch(0.4, 0.42, 0.05)).toMatchObject({ pass: true });
    expect(killSwitch(0.4, 0.419, 0.05)).toMatchObject({ pass: false });
    expect(killSwitch(0, 0, 0.05)).toEqual({ pass: false, delta: 0, relative_delta: null });
    expect(killSwitch(0, 0.01, 0.05)).toMatchObject({ pass: true, relative_delta: null });
    expect(killSwitch(1, 1, 0)).toMatchObject({ pass: false });
  });

  test("the second round counts gains at the limit, whatever their binary form", () => {
    const limits = { improved: 4, gain: 0.02, regression: 0.01 };
    const before = { a: 0.1, b: 0.3, c: 0.5, d: 0.7, e: 0.2, f: 0.4 };
    const after = { a: 0.12, b: 0.32, c: 0.52, d: 0.72, e: 0.19, f: 0.4 };
    expect(0.12 - 0.1).toBeLessThan(0.02);
    expect(round2Gate(before, after, limits)).toMatchObject({ pass: true, improved: 4 });
    expect(round2Gate(before, { ...after, e: 0.18 }, limits).pass).toBe(false);
    expect(round2Gate(before, { ...after, a: 0.11 }, limits).pass).toBe(false);
    const { a: _, ...incomplete } = after;
    expect(() => round2Gate(before, incomplete, limits)).toThrow("Only one side has: a");
  });
});

describe("a comparison", () => {
  const side = (right: string): ReturnType<typeof tallyOf>[] =>
    right.split("").map((mark, at) => tallyOf(String(at), Number(mark)));

  test("counts wins and losses by task", () => {
    expect(compare(side("1100"), side("0111"), 0.95)).toMatchObject({
      difference: 0.25,
      wins: 2,
      losses: 1,
      ties: 1,
      verdict: "undecided",
    });
  });

  test("gives the adjusted Wald interval of Bonett and Price", () => {
    // 36 pairs, 12 won and 2 lost: (13/38 - 3/38) +- 1.96 sqrt((16/38 - (10/38)^2) / 38).
    const a = "0".repeat(12) + "1".repeat(2) + "1".repeat(22);
    const b = "1".repeat(12) + "0".repeat(2) + "1".repeat(22);
    const { interval, verdict } = compare(side(a), side(b), 0.95);
    const half = 1.959964 * Math.sqrt((16 / 38 - (10 / 38) ** 2) / 38);
    expect(interval[0]).toBeCloseTo(10 / 38 - half, 5);
    expect(interval[1]).toBeCloseTo(10 / 38 + half, 5);
    expect(verdict).toBe("better");
  });

  test("proves nothing by two tasks", () => {
    expect(compare(side("00"), side("11"), 0.95).verdict).toBe("undecided");
    expect(compare(side("11"), side("11"), 0.95).verdict).toBe("undecided");
  });

  test("turns around with its sides, and its interval holds the adjusted difference", () => {
    const marks = fc.array(fc.tuple(fc.nat(4), fc.nat(4)), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(marks, (pairs) => {
        const a = pairs.map(([c], at) => tallyOf(String(at), c, 4));
        const b = pairs.map(([, c], at) => tallyOf(String(at), c, 4));
        const [there, back] = [compare(a, b, 0.9), compare(b, a, 0.9)];
        expect(there.difference).toBeCloseTo(-back.difference, 12);
        expect(there.interval[0]).toBeCloseTo(-back.interval[1], 12);
        expect(there.wins).toBe(back.losses);
        const center = (there.difference * pairs.length) / (pairs.length + 2);
        expect(there.interval[0]).toBeLessThanOrEqual(center + 1e-12);
        expect(there.interval[1]).toBeGreaterThanOrEqual(center - 1e-12);
        expect(compare(a, b, 0.99).interval[0]).toBeLessThanOrEqual(there.interval[0] + 1e-12);
      }),
    );
  });

  test("wants the same tasks on both sides", () => {
    expect(() => compare(side("11"), side("1"), 0.95)).toThrow("Not on the same tasks: 1");
    expect(() => compare([], [], 0.95)).toThrow("no task");
    const twice = [tallyOf("a", 1), tallyOf("a", 0)];
    expect(() => compare(twice, twice, 0.95)).toThrow("twice");
  });

  test("uses the normal quantile", () => {
    expect(normalQuantile(0.975)).toBeCloseTo(1.959964, 5);
    expect(normalQuantile(0.995)).toBeCloseTo(2.575829, 5);
  });
});
