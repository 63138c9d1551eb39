import { describe, expect, test } from "vitest";
import {
  blockReasonOf,
  foldSample,
  gpuStatus,
  lanesInUse,
  pendingInOrder,
  placeForLoad,
} from "../../../src/scheduler/index.ts";
import { admits, admitted, drive, keyOf, profileOf } from "./support.ts";

const TWO = { g: [24_000, 24_000], h: [16_000, 16_000] } satisfies Record<string, [number, number]>;
const ONE = { g: [24_000, 24_000] } satisfies Record<string, [number, number]>;

describe("choosing a GPU", () => {
  test("takes the fullest GPU that fits, and keeps the roomy one for large jobs", () => {
    const d = drive();
    d.profile("k", { vramMb: 10_000 });
    d.profile("large", { vramMb: 20_000 });
    d.telemetry(TWO);
    expect(placeForLoad(d.state)).toBe("g");
    expect(admits(d.submit("a"))).toMatchObject([{ gpuUuid: "h" }]);
    const large = d.submit("b", { instanceId: "two", profileKey: keyOf("large") });
    expect(admits(large)).toMatchObject([{ gpuUuid: "g" }]);
    expect(lanesInUse(d.state)).toBe(2);
  });

  test("moves an idle instance when its own GPU is taken by another program", () => {
    const d = drive();
    d.profile("k", { vramMb: 10_000, loadMs: 3000 });
    d.ready("one", { gpuUuid: "g", observedVramMb: 2000 });
    d.telemetry({ g: [24_000, 1000], h: [16_000, 16_000] }, { vram: { one: 2000 } });
    expect(d.submit("a")).toMatchObject([
      { type: "respawn", instanceId: "one", reason: "moved" },
      { type: "block", reason: { kind: "eviction", instanceIds: ["one"] } },
    ]);
    expect(admits(d.absent("one"))).toMatchObject([{ jobId: "a", gpuUuid: "h" }]);
  });

  test("moves an instance whose GPU is too small for the job, or has gone", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.ready("one", { gpuUuid: "h" });
    d.telemetry(TWO);
    expect(d.submit("a")[0]).toMatchObject({ type: "respawn", instanceId: "one" });
    expect(admits(d.absent("one"))).toMatchObject([{ gpuUuid: "g" }]);
    d.ready("two", { gpuUuid: "h" });
    d.telemetry({ g: [24_000, 24_000] });
    d.profile("small", { vramMb: 1000 });
    const decisions = d.submit("b", { instanceId: "two", profileKey: keyOf("small") });
    expect(decisions[0]).toMatchObject({ type: "respawn", instanceId: "two" });
  });

  test("stays where waiting is shorter than loading again", () => {
    const d = drive();
    d.profile("k", { vramMb: 12_000, durationMs: 1000, loadMs: 60_000 });
    d.ready("one", { gpuUuid: "g", observedVramMb: 8000 });
    d.ready("two", { gpuUuid: "g", observedVramMb: 8000 });
    d.telemetry({ g: [24_000, 8000], h: [16_000, 16_000] }, { vram: { one: 8000, two: 8000 } });
    expect(admitted(d.submit("a"))).toEqual(["a"]);
    d.profile("m", { vramMb: 14_000, durationMs: 1000, loadMs: 60_000 });
    // It needs 6 GB more where 4 are left: the other GPU has room, but "a" ends within a second.
    expect(d.submit("b", { instanceId: "two", profileKey: keyOf("m") })).toMatchObject([
      { type: "block", reason: { kind: "vram", gpuUuid: "g", neededMb: 6000, availableMb: 4000 } },
    ]);
  });
});

describe("first runs", () => {
  test("borrow the peak of a larger input and run beside others", () => {
    const d = drive();
    d.profile("k", { vramMb: 4000, bucket: 2048 });
    d.telemetry(ONE);
    const [admit] = admits(d.submit("a", { profileKey: keyOf("k", { bucket: 1024 }) }));
    expect(admit).toMatchObject({
      exclusive: false,
      reservedMb: 5000,
      borrowedFrom: keyOf("k", { bucket: 2048 }),
    });
  });

  test("run beside others within a limit that the caller gives", () => {
    const d = drive();
    d.telemetry(ONE);
    const [admit] = admits(d.submit("a", { vramLimitMb: 3000 }));
    expect(admit).toMatchObject({ exclusive: false, reservedMb: 3000, borrowedFrom: null });
    expect(d.submit("b", { instanceId: "two" })).toMatchObject([{ reason: { kind: "alone" } }]);
  });

  test("of a capability that never used a GPU are alone in their instance only", () => {
    const d = drive();
    d.profile("cpu", { vramMb: 0, capability: "tool" });
    d.profile("k", { vramMb: 1000 });
    d.telemetry(ONE);
    d.submit("a");
    const [admit] = admits(
      d.submit("b", {
        instanceId: "tool",
        capability: "tool",
        profileKey: keyOf("x", { capability: "tool" }),
      }),
    );
    expect(admit).toMatchObject({ exclusive: true, gpuUuid: null });
    expect(admitted(d.submit("c", { instanceId: "three" }))).toEqual(["c"]);
  });

  test("let idle residents leave first, and zero-VRAM work go on", () => {
    const d = drive();
    d.profile("k", { vramMb: 6000 });
    d.profile("cpu", { vramMb: 0, capability: "tool" });
    d.ready("one", { gpuUuid: "g", observedVramMb: 6000 });
    d.telemetry({ g: [24_000, 18_000] }, { vram: { one: 6000 } });
    const [evict] = d.submit("new", { instanceId: "two", profileKey: keyOf("new") });
    expect(evict).toMatchObject({ type: "evict", instanceId: "one", level: "sleep" });
    d.send({ type: "eviction_finished", instanceId: "one", replied: true });
    const after = d.telemetry({ g: [24_000, 23_000] }, { vram: { one: 1000 } });
    expect(admits(after)).toMatchObject([{ jobId: "new", exclusive: true }]);
    expect(gpuStatus(d.state)).toMatchObject([{ exclusiveJobId: "new" }]);
    const tool = {
      instanceId: "tool",
      capability: "tool",
      profileKey: keyOf("cpu", { capability: "tool" }),
    };
    expect(admitted(d.submit("c", tool))).toEqual(["c"]);
  });

  test("that were too short to be sampled still count as runs where there is no GPU", () => {
    const d = drive();
    const { key } = profileOf("k", {});
    const unsampled = {
      key,
      outcome: "completed" as const,
      alone: true,
      vramPeakMb: null,
      ramPeakMb: null,
      durationMs: 1,
      loadMs: null,
      cpuPercent: null,
      usage: {},
      seenAtMs: 0,
      driver: null,
    };
    const profile = foldSample(null, unsampled);
    d.send({ type: "profile_changed", key: keyOf("k"), profile });
    d.telemetry(null);
    d.ready("one", { maxConcurrent: 2 });
    expect(["a", "b"].flatMap((id) => admitted(d.submit(id)))).toEqual(["a", "b"]);
    // Where a monitor runs it could still use a GPU.
    d.telemetry(ONE);
    expect(d.submit("c", { instanceId: "two" })).toMatchObject([{ exclusive: true }]);
  });

  test("are every run when tracking is off", () => {
    const d = drive({ empiricalTracking: false });
    d.profile("k", { vramMb: 1000 });
    d.telemetry(ONE);
    expect(admits(d.submit("a"))).toMatchObject([{ exclusive: true }]);
    expect(admitted(d.submit("b", { instanceId: "two" }))).toEqual([]);
  });
});

describe("running out of memory", () => {
  test("a lower bound is heeded but never makes a key impossible", () => {
    const d = drive();
    const key = keyOf("k");
    const once = profileOf("k", { vramMb: 10_000 });
    const bound = (vramPeakMb: number) =>
      foldSample(once, {
        key: once.key,
        outcome: "out_of_memory",
        alone: true,
        vramPeakMb,
        ramPeakMb: null,
        durationMs: 1,
        loadMs: null,
        cpuPercent: null,
        usage: {},
        seenAtMs: 0,
        driver: null,
      });
    d.telemetry(ONE);
    d.send({ type: "profile_changed", key, profile: bound(12_000) });
    expect(admits(d.submit("a"))).toMatchObject([{ reservedMb: 12_000, exclusive: false }]);
    d.absent("one");
    d.finish("a");
    d.send({ type: "profile_changed", key, profile: bound(25_000) });
    expect(admits(d.submit("b"))).toMatchObject([{ exclusive: true }]);
  });

  test("ends the worker before anything else runs in it", () => {
    const d = drive();
    d.profile("k", { vramMb: 10_000 });
    d.telemetry(ONE);
    d.submit("a");
    d.ready("one", { gpuUuid: "g" });
    d.submit("b");
    expect(d.finish("a", "out_of_memory")).toMatchObject([
      { type: "respawn", instanceId: "one", reason: "out_of_memory" },
      { type: "block", jobId: "b", reason: { kind: "eviction" } },
    ]);
    expect(admitted(d.absent("one"))).toEqual(["b"]);
  });

  test("leaves the other jobs of the worker alone", () => {
    const d = drive();
    d.profile("k", { vramMb: 5000 });
    d.telemetry(ONE);
    d.ready("one", { gpuUuid: "g", maxConcurrent: 2 });
    d.submit("a");
    d.submit("b");
    expect(d.finish("a", "out_of_memory")).toEqual([]);
    expect(admitted(d.submit("c"))).toEqual([]);
    expect(d.finish("b")[0]).toMatchObject({ type: "respawn" });
  });
});

describe("jobs side by side in one instance", () => {
  test("share what it held when it was loaded", () => {
    const d = drive();
    d.profile("k", { vramMb: 10_000 });
    d.telemetry(ONE);
    d.submit("a");
    d.ready("one", { gpuUuid: "g", maxConcurrent: 3, observedVramMb: 8000 });
    d.telemetry({ g: [24_000, 16_000] }, { vram: { one: 8000 } });
    expect(admits(d.submit("b"))).toMatchObject([{ reservedMb: 2000 }]);
    // Together they were seen to need more than the sum of what each needs alone.
    d.telemetry({ g: [24_000, 11_000] }, { vram: { one: 13_000 } });
    expect(gpuStatus(d.state)).toMatchObject([{ reservedMb: 13_000 }]);
    d.telemetry({ g: [24_000, 14_000] }, { vram: { one: 10_000 } });
    expect(gpuStatus(d.state)).toMatchObject([{ reservedMb: 13_000 }]);
  });
});

describe("without measurements", () => {
  test("GPU jobs run alone on a machine whose GPU nobody watches", () => {
    const d = drive();
    d.profile("k", { vramMb: 1000 });
    d.telemetry(null);
    expect(admits(d.submit("a"))).toMatchObject([{ exclusive: true, gpuUuid: null }]);
    d.ready("one", { gpuUuid: null });
    expect(admitted(d.submit("b", { instanceId: "two" }))).toEqual([]);
    // The idle resident is asked to leave, and its word has to do.
    expect(d.finish("a")[0]).toMatchObject({ type: "evict", instanceId: "one" });
    const after = d.send({ type: "eviction_finished", instanceId: "one", replied: true });
    expect(admitted(after)).toEqual(["b"]);
  });

  test("a monitor that falls silent makes GPU jobs run alone from then on", () => {
    const d = drive();
    d.profile("k", { vramMb: 1000 });
    d.telemetry(ONE);
    d.submit("a");
    d.telemetry(null);
    expect(d.submit("b", { instanceId: "two" })).toMatchObject([{ reason: { kind: "alone" } }]);
    expect(admitted(d.telemetry(ONE))).toEqual(["b"]);
  });
});

describe("the other admission modes", () => {
  test("refuse fails what does not fit now", () => {
    const d = drive({ admission: "refuse" });
    d.profile("k", { vramMb: 20_000 });
    d.telemetry({ g: [24_000, 10_000] });
    expect(d.submit("a")).toMatchObject([
      { type: "reject", shortfall: { resource: "gpu_vram_mb", needed: 20_000, available: 10_000 } },
    ]);
  });

  test("permissive checks lanes and caps only", () => {
    const d = drive({ admission: "permissive" });
    d.profile("k", { vramMb: 20_000 });
    d.telemetry({ g: [24_000, 10_000] });
    expect(admits(d.submit("a"))).toMatchObject([{ gpuUuid: "g", exclusive: false }]);
    expect(d.submit("b")).toMatchObject([{ reason: { kind: "instance_busy" } }]);
  });
});

describe("host RAM", () => {
  test("an idle resident is unloaded for a job that needs its RAM", () => {
    const d = drive();
    d.profile("k", { vramMb: 0, ramMb: 6000 });
    d.ready("two");
    d.telemetry(null, { ramFreeMb: 2000, ram: { two: 5000 } });
    expect(d.submit("a")).toMatchObject([
      { type: "evict", instanceId: "two", level: "unload" },
      { type: "block", reason: { kind: "eviction", instanceIds: ["two"] } },
    ]);
    d.absent("two");
    expect(admitted(d.telemetry(null, { ramFreeMb: 7000 }))).toEqual(["a"]);
  });

  test("is set aside for a job that waits for a GPU", () => {
    const d = drive();
    d.profile("big", { vramMb: 20_000, ramMb: 6000, durationMs: 1000 });
    d.profile("cpu", { vramMb: 0, ramMb: 3000, durationMs: 10 });
    d.telemetry(ONE, { ramFreeMb: 14_000 });
    d.submit("a", { profileKey: keyOf("big") });
    d.submit("b", { instanceId: "two", profileKey: keyOf("big") });
    expect(blockReasonOf(d.state, "b")).toMatchObject({ kind: "vram" });
    expect(d.submit("c", { instanceId: "three", profileKey: keyOf("cpu") })).toMatchObject([
      { reason: { kind: "reservation", where: "RAM", behindJobId: "b" } },
    ]);
  });
});

describe("reservations", () => {
  const long = { vramMb: 12_000, durationMs: 1000 };

  test("let a later job pass when it ends in time or uses what is left over", () => {
    const d = drive();
    d.profile("long", long);
    d.profile("large", { vramMb: 20_000 });
    d.profile("short", { vramMb: 6000, durationMs: 900 });
    d.profile("slow", { vramMb: 6000, durationMs: 5000 });
    d.profile("little", { vramMb: 3000, durationMs: 5000 });
    d.telemetry(ONE);
    d.submit("a", { profileKey: keyOf("long") });
    d.submit("b", { instanceId: "two", profileKey: keyOf("large") });
    expect(d.submit("slow", { instanceId: "3", profileKey: keyOf("slow") })).toMatchObject([
      { reason: { kind: "reservation", behindJobId: "b" } },
    ]);
    const little = d.submit("little", { instanceId: "4", profileKey: keyOf("little") });
    expect(admitted(little)).toEqual(["little"]);
    expect(admitted(d.submit("short", { instanceId: "5", profileKey: keyOf("short") }))).toEqual([
      "short",
    ]);
    expect(pendingInOrder(d.state)).toMatchObject([
      { jobId: "b", passes: 2 },
      { jobId: "slow", passes: 0 },
    ]);
  });

  test("are passed no more often than allowed", () => {
    const d = drive({ maxPasses: 2, maxLanes: 99 });
    d.profile("long", long);
    d.profile("large", { vramMb: 20_000 });
    d.profile("tiny", { vramMb: 1000, durationMs: 10 });
    d.telemetry(ONE);
    d.submit("a", { profileKey: keyOf("long") });
    d.submit("b", { instanceId: "two", profileKey: keyOf("large") });
    const passed = [1, 2, 3, 4].flatMap((i) =>
      admitted(d.submit(`t${i}`, { instanceId: `t${i}`, profileKey: keyOf("tiny") })),
    );
    expect(passed).toEqual(["t1", "t2"]);
  });

  test("are given to a job whose instance holds enough, when the jobs beside it there have ended", () => {
    const d = drive({ vramMarginMb: 1000, maxPasses: 0 });
    d.profile("k", { vramMb: 12_000 });
    d.profile("tiny", { vramMb: 100, durationMs: 1 });
    d.ready("tiny", { gpuUuid: "g" });
    d.ready("one", { gpuUuid: "g", maxConcurrent: 2 });
    d.telemetry({ g: [24_000, 11_900] }, { vram: { one: 12_000, tiny: 100 } });
    d.submit("a");
    // Another program has come to fill the margin.
    d.telemetry({ g: [24_000, 500] }, { vram: { one: 12_000, tiny: 100 } });
    d.submit("b");
    expect(gpuStatus(d.state)).toMatchObject([{ heldByJobId: "b" }]);
    expect(admitted(d.submit("t", { instanceId: "tiny", profileKey: keyOf("tiny") }))).toEqual([]);
    expect(admitted(d.finish("a"))).toEqual(["b", "t"]);
  });

  test("are not held against a more urgent job", () => {
    const d = drive({ maxPasses: 0 });
    d.profile("long", long);
    d.profile("large", { vramMb: 20_000 });
    d.profile("tiny", { vramMb: 1000, durationMs: 10 });
    d.telemetry(ONE);
    d.submit("a", { profileKey: keyOf("long") });
    d.submit("b", { instanceId: "two", profileKey: keyOf("large") });
    const urgent = { instanceId: "u", profileKey: keyOf("tiny"), priority: 1 };
    expect(admitted(d.submit("u", urgent))).toEqual(["u"]);
  });

  test("in an instance keep a first run from waiting for ever", () => {
    const d = drive({ maxPasses: 1 });
    d.profile("k", { vramMb: null, ramMb: 1, durationMs: 1000 });
    d.telemetry(null);
    d.ready("one", { maxConcurrent: 2 });
    d.submit("a");
    d.submit("new", { profileKey: keyOf("new") });
    // It would end with the running one, so it may pass once.
    expect(admitted(d.submit("b"))).toEqual(["b"]);
    d.finish("a");
    expect(admitted(d.submit("c"))).toEqual([]);
    expect(admitted(d.finish("b"))).toEqual(["new"]);
  });
});

test("one GPU is handed from generating to training and back", () => {
  const d = drive();
  d.profile("generate", { vramMb: 16_000 });
  d.profile("train", { vramMb: 20_000 });
  d.telemetry(ONE);
  d.submit("g1", { instanceId: "inference", profileKey: keyOf("generate") });
  d.ready("inference", { gpuUuid: "g", observedVramMb: 14_000 });
  d.telemetry({ g: [24_000, 8000] }, { vram: { inference: 16_000 } });
  d.finish("g1");
  d.telemetry({ g: [24_000, 8000] }, { vram: { inference: 16_000 } });

  const asked = d.submit("t", { instanceId: "trainer", profileKey: keyOf("train") });
  expect(asked[0]).toMatchObject({ type: "evict", instanceId: "inference", level: "sleep" });
  d.send({ type: "eviction_finished", instanceId: "inference", replied: true });
  // Asleep it still holds too much: now it is unloaded.
  const again = d.telemetry({ g: [24_000, 18_000] }, { vram: { inference: 6000 } });
  expect(again[0]).toMatchObject({ type: "evict", instanceId: "inference", level: "unload" });
  d.absent("inference");
  expect(admitted(d.telemetry(ONE))).toEqual(["t"]);

  d.ready("trainer", { gpuUuid: "g" });
  d.submit("g2", { instanceId: "inference", profileKey: keyOf("generate") });
  d.absent("trainer");
  expect(admits(d.finish("t", "failed"))).toMatchObject([{ jobId: "g2", gpuUuid: "g" }]);
});
