import type { Scenario } from "./world.ts";

const NO_ADVERSARY = { outOfMemory: 0, cancel: 0, lie: 0, external: 0 };

const MACHINE = {
  gpus: { g0: 24, g1: 24 },
  marginMb: 1,
  maxLanes: 4,
  maxPasses: 1,
  instances: {
    A: { gpu: "g0", base: 10, asleep: 1 },
    B: { gpu: "g0", base: 10, asleep: 1 },
    C: { gpu: "g1", base: 10, asleep: 1 },
  },
  foreign: { g0: 8 },
} as const satisfies Partial<Scenario>;

/** Every kind of move the machine knows, all adversaries at once. */
export const EVERYTHING: Scenario = {
  ...MACHINE,
  name: "everything may happen",
  maxLanes: 2,
  budget: { outOfMemory: 1, cancel: 1, lie: 1, external: 1 },
  jobs: [
    { id: "a1", instance: "A", peak: 14 },
    { id: "b1", instance: "B", peak: 20, mayRunOut: true },
    { id: "c1", instance: "C", peak: 10 },
    { id: "a2", instance: "A", peak: 12 },
  ],
};

/** Two residents of one GPU whose second jobs need each other's memory. */
export const CROSSED: Scenario = {
  ...MACHINE,
  name: "two jobs need each other's resident",
  budget: { outOfMemory: 0, cancel: 1, lie: 1, external: 1 },
  jobs: [
    { id: "a1", instance: "A", peak: 10 },
    { id: "b1", instance: "B", peak: 10 },
    { id: "a2", instance: "A", peak: 20 },
    { id: "b2", instance: "B", peak: 20 },
  ],
};

/** New instances beside a foreign program, while ours grow into what they were promised. */
export const GROWING: Scenario = {
  ...MACHINE,
  name: "ours grow beside a foreign program",
  budget: { ...NO_ADVERSARY, external: 1 },
  instances: {
    ...MACHINE.instances,
    A: { base: 2, asleep: 1 },
    B: { base: 2, asleep: 1 },
  },
  foreign: { g0: 8, g1: 8 },
  jobs: [
    { id: "a1", instance: "A", peak: 10 },
    { id: "b1", instance: "B", peak: 10 },
    { id: "c1", instance: "C", peak: 15 },
    { id: "a2", instance: "A", peak: 9 },
  ],
};

/** A large job behind a long one, and small ones that fit beside the long one. */
export const PASSED: Scenario = {
  ...MACHINE,
  name: "small jobs pass a large one",
  budget: { ...NO_ADVERSARY, cancel: 1, external: 1 },
  instances: {
    A: { gpu: "g0", base: 2, asleep: 1 },
    B: { gpu: "g0", base: 2, asleep: 1 },
    C: { gpu: "g0", base: 1, asleep: 1, maxConcurrent: 2 },
    D: { gpu: "g1", base: 12, asleep: 12 },
  },
  jobs: [
    { id: "a1", instance: "A", peak: 12, durationMs: 100 },
    { id: "b1", instance: "B", peak: 19, durationMs: 10 },
    { id: "c1", instance: "C", peak: 3, durationMs: 10 },
    { id: "c2", instance: "C", peak: 4, durationMs: 10 },
  ],
};

/** Keys that were never measured among measured ones. */
export const MEASURING: Scenario = {
  ...MACHINE,
  name: "first runs are alone",
  budget: { ...NO_ADVERSARY, lie: 1, outOfMemory: 1 },
  instances: {
    ...MACHINE.instances,
    C: { gpu: "g1", base: 10, asleep: 1, maxConcurrent: 2 },
    D: { base: 4, asleep: 1 },
  },
  jobs: [
    { id: "a1", instance: "A", peak: 12 },
    { id: "d1", instance: "D", peak: 20, unmeasured: true, mayRunOut: true },
    { id: "c1", instance: "C", peak: 13 },
    { id: "c2", instance: "C", peak: 12, unmeasured: true },
  ],
};

/** More urgent jobs come late, and there are fewer lanes than jobs. */
export const URGENT: Scenario = {
  ...MACHINE,
  name: "urgent jobs come late",
  maxLanes: 2,
  budget: { ...NO_ADVERSARY, cancel: 1, external: 1 },
  jobs: [
    { id: "a1", instance: "A", peak: 20 },
    { id: "b1", instance: "B", peak: 14 },
    { id: "c1", instance: "C", peak: 14, priority: 1 },
    { id: "b2", instance: "B", peak: 20, priority: 2 },
  ],
};

export const SCENARIOS: readonly Scenario[] = [
  EVERYTHING,
  CROSSED,
  GROWING,
  PASSED,
  MEASURING,
  URGENT,
];
