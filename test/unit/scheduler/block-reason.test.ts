import { expect, test } from "vitest";
import { describeBlock, type BlockReason } from "../../../src/scheduler/index.ts";

const WORDS: readonly (readonly [string, BlockReason])[] = [
  ["all 4 lanes are in use", { kind: "lanes", inUse: 4, limit: 4 }],
  ["one runs 2 of 2 jobs", { kind: "instance_busy", instanceId: "one", running: 2, limit: 2 }],
  [
    "must run alone on GPU g to be measured; other jobs run there",
    { kind: "alone", scope: "gpu", where: "g", behindJobId: null },
  ],
  ["job a runs alone on one", { kind: "alone", scope: "instance", where: "one", behindJobId: "a" }],
  [
    "needs 5 MB on GPU g, 3 MB available",
    { kind: "vram", gpuUuid: "g", neededMb: 5, availableMb: 3, outsideMb: 0 },
  ],
  ["needs 5 MB of RAM, 3 MB available", { kind: "ram", neededMb: 5, availableMb: 3 }],
  ["3 MB of disk free, the minimum is 5 MB", { kind: "disk", neededMb: 5, availableMb: 3 }],
  [
    "waiting for one, two to release memory",
    { kind: "eviction", gpuUuid: "g", instanceIds: ["one", "two"] },
  ],
  [
    "would delay job a, which g is reserved for",
    { kind: "reservation", where: "g", behindJobId: "a" },
  ],
  ["behind job a of its class", { kind: "behind", behindJobId: "a" }],
];

test.for(WORDS)("%s", ([words, reason]) => {
  expect(describeBlock(reason)).toBe(words);
});
