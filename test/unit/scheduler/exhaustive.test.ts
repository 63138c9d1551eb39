import { describe, expect, test } from "vitest";
import { DEFAULT_RULES, type SchedulerRules } from "../../../src/scheduler/index.ts";
import { CROSSED, EVERYTHING, GROWING, PASSED, SCENARIOS } from "./search/scenarios.ts";
import { explore } from "./search/search.ts";
import type { Scenario } from "./search/world.ts";

describe("every interleaving of four jobs, three residents and two GPUs", () => {
  test.for(SCENARIOS)(
    "$name: nothing is stuck, over-committed, starved or lost",
    { timeout: 120_000 },
    (scenario) => {
      const { states, transitions, finals, violation } = explore(scenario, DEFAULT_RULES);
      console.log(`${scenario.name}: ${states} states, ${transitions} transitions, ${finals} ends`);
      expect(violation).toBeNull();
      expect(finals).toBeGreaterThan(0);
    },
  );
});

interface Mutant {
  readonly name: string;
  readonly rules: Partial<SchedulerRules>;
  readonly scenario: Scenario;
  readonly caught: RegExp;
}

const MUTANTS: readonly Mutant[] = [
  {
    name: "the ledger and the free memory tested apart",
    rules: { memoryTest: "apart" },
    scenario: GROWING,
    caught: /over-committed/u,
  },
  {
    name: "residents that pending jobs want cannot be evicted",
    rules: { wantedResidents: "untouchable" },
    scenario: CROSSED,
    caught: /stuck/u,
  },
  {
    name: "passing a reservation is not bounded",
    rules: { passBound: false },
    scenario: PASSED,
    caught: /was passed 2 times/u,
  },
];

describe("a broken rule is caught", () => {
  test.for(MUTANTS)("$name", { timeout: 120_000 }, ({ rules, scenario, caught }) => {
    const { violation, states } = explore(scenario, { ...DEFAULT_RULES, ...rules });
    expect(violation?.message).toMatch(caught);
    expect(violation?.moves.length).toBeGreaterThan(0);
    console.log(`${violation?.message}, found after ${states} states`);
  });

  test(
    "all adversaries together find the untouchable resident as well",
    { timeout: 120_000 },
    () => {
      const rules = { ...DEFAULT_RULES, wantedResidents: "untouchable" as const };
      expect(explore(EVERYTHING, rules).violation?.message).toMatch(/stuck/u);
    },
  );
});
