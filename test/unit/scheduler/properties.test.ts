import {
  assert,
  array,
  boolean,
  constantFrom,
  integer,
  nat,
  option,
  property,
  record,
} from "fast-check";
import { expect, test } from "vitest";
import { blockReasonOf, DEFAULT_RULES, type SchedulerState } from "../../../src/scheduler/index.ts";
import {
  check,
  cloneWorld,
  createWorld,
  isStuck,
  movesOf,
  worldKey,
  type Scenario,
  type ScenarioInstance,
  type World,
} from "./search/world.ts";

const GPU_SIZES = { g0: 24, g1: 16, g2: 48 };
const MARGIN = 1;
const LARGEST = 47;

const instances = array(
  record({
    gpu: option(constantFrom("g0", "g1", "g2"), { nil: undefined }),
    base: integer({ min: 0, max: 7 }),
    maxConcurrent: integer({ min: 1, max: 3 }),
  }),
  { minLength: 1, maxLength: 4 },
);

const jobs = array(
  record({
    instance: nat(),
    above: integer({ min: 0, max: LARGEST }),
    priority: integer({ min: 0, max: 1 }),
    durationMs: option(integer({ min: 1, max: 100 }), { nil: undefined }),
    unmeasured: boolean(),
    mayRunOut: boolean(),
  }),
  { minLength: 1, maxLength: 14 },
);

const scenarios = record({
  instances,
  jobs,
  maxLanes: integer({ min: 1, max: 6 }),
  maxPasses: integer({ min: 0, max: 3 }),
  foreign: record({ g0: integer({ min: 1, max: 20 }), g2: integer({ min: 1, max: 40 }) }),
  choices: array(nat(), { minLength: 1, maxLength: 300 }),
}).map(({ instances: kinds, jobs: work, maxLanes, maxPasses, foreign, choices }) => {
  const scenario: Scenario = {
    name: "random",
    gpus: GPU_SIZES,
    marginMb: MARGIN,
    maxLanes,
    maxPasses,
    instances: Object.fromEntries(kinds.map((kind, i) => [`i${i}`, instanceOf(kind)])),
    jobs: work.map(({ instance, above, durationMs, ...job }, i) => {
      const { base } = kinds[instance % kinds.length] ?? { base: 0 };
      return {
        ...job,
        id: `j${i}`,
        instance: `i${instance % kinds.length}`,
        peak: Math.min(LARGEST, base + 1 + above),
        ...(durationMs !== undefined && { durationMs }),
      };
    }),
    foreign,
    budget: { outOfMemory: 2, cancel: 2, lie: 2, external: 3 },
  };
  return { scenario, choices };
});

function instanceOf({
  gpu,
  base,
  maxConcurrent,
}: {
  gpu: string | undefined;
  base: number;
  maxConcurrent: number;
}): ScenarioInstance {
  return { base, asleep: Math.min(1, base), maxConcurrent, ...(gpu !== undefined && { gpu }) };
}

/** Takes random moves, then only those that must come, and fails when jobs are left. */
function walk(scenario: Scenario, choices: readonly number[]): World {
  const world = createWorld(scenario, DEFAULT_RULES);
  for (let turn = 0; turn < 10_000; turn++) {
    const all = movesOf(world);
    if (isStuck(world, all)) throw new Error("jobs wait and nothing will happen");
    const choice = choices[turn];
    const isSubmit = (label: string): boolean => label.startsWith("submit");
    const moves =
      choice === undefined
        ? all.filter(({ mayNotCome, label }) => mayNotCome !== true || isSubmit(label))
        : all;
    if (moves.length === 0) return world;
    moves[(choice ?? 0) % moves.length]?.apply(world);
    check(world);
    checkLedger(world.scheduler);
  }
  throw new Error("things go on happening, and jobs wait for ever");
}

/** What is kept up to date by differences must equal what is added up anew. */
function checkLedger(state: SchedulerState): void {
  for (const gpu of state.gpus.values()) {
    let promised = 0;
    for (const id of gpu.instances) {
      const vram = state.instances.get(id)?.vram;
      promised += Math.max(0, (vram?.reservedMb ?? 0) - (vram?.sampledMb ?? 0));
    }
    expect(gpu.availableMb).toBe(gpu.freeMb - gpu.marginMb - promised);
  }
  const order = state.gpuOrder.map(({ availableMb }) => availableMb);
  expect(order).toEqual(order.toSorted((a, b) => a - b));
  for (const jobId of state.pending.keys()) expect(blockReasonOf(state, jobId)).not.toBeNull();
}

/** A job ran out of memory beside another: it waits for the end of its process, holding nothing. */
const WAITS_FOR_A_RESTART: { scenario: Scenario; choices: number[] } = {
  scenario: {
    name: "random",
    gpus: GPU_SIZES,
    marginMb: MARGIN,
    maxLanes: 2,
    maxPasses: 0,
    instances: {
      i0: { base: 0, asleep: 0, maxConcurrent: 2, gpu: "g2" },
      i1: { base: 3, asleep: 1, maxConcurrent: 1 },
    },
    jobs: [
      { id: "j0", instance: "i0", priority: 0, peak: 1, unmeasured: false, mayRunOut: false },
      { id: "j1", instance: "i0", priority: 0, peak: 1, unmeasured: false, mayRunOut: true },
      { id: "j2", instance: "i1", priority: 0, peak: 24, unmeasured: false, mayRunOut: false },
      { id: "j3", instance: "i0", priority: 0, peak: 1, unmeasured: false, mayRunOut: false },
    ],
    foreign: { g0: 1, g2: 1 },
    budget: { outOfMemory: 2, cancel: 2, lie: 2, external: 3 },
  },
  choices: [0, 0, 1_145_070_567, 399_814_229, 0],
};

test("any machine with any jobs: all end, none is lost, nothing is over-committed", () => {
  assert(
    property(scenarios, ({ scenario, choices }) => {
      const world = walk(scenario, choices);
      expect(world.done.size).toBe(scenario.jobs.length);
      expect(world.scheduler.running.size).toBe(0);
      expect(world.scheduler.pending.size).toBe(0);
      expect(world.scheduler.classes.size).toBe(0);
      expect(world.scheduler.lines.size).toBe(0);
    }),
    { numRuns: 600, examples: [[WAITS_FOR_A_RESTART]] },
  );
});

test("a step on a copy decides the same, and changes nothing of the original", () => {
  assert(
    property(scenarios, ({ scenario, choices }) => {
      const world = createWorld(scenario, DEFAULT_RULES);
      for (const choice of choices) {
        const moves = movesOf(world);
        const move = moves[choice % moves.length];
        if (move === undefined) return;
        const before = worldKey(world);
        const copy = cloneWorld(world);
        move.apply(copy);
        expect(worldKey(world)).toBe(before);
        move.apply(world);
        expect(worldKey(copy)).toBe(worldKey(world));
      }
    }),
    { numRuns: 100 },
  );
});
