import { describe, expect, test } from "vitest";
import { blockReasonOf, describeBlock, gpuStatus } from "../../../src/scheduler/index.ts";
import { admits, admitted, drive, keyOf } from "./support.ts";

describe("without a GPU", () => {
  test("runs the first job of an unknown key alone in its instance, then as many as it may", () => {
    const d = drive();
    d.telemetry(null);
    d.ready("one", { maxConcurrent: 4 });
    expect(admits(d.submit("a"))).toMatchObject([
      { jobId: "a", gpuUuid: null, exclusive: true, reservedMb: 0, statsAvailable: false },
    ]);
    expect(d.submit("b")).toMatchObject([
      { type: "block", jobId: "b", reason: { kind: "alone", behindJobId: "a" } },
    ]);
    expect(["c", "d", "e"].flatMap((id) => d.submit(id))).toEqual([]);
    d.profile("k", { vramMb: null, ramMb: 10 });
    expect(admitted(d.finish("a"))).toEqual(["b", "c", "d", "e"]);
    expect(d.submit("f")).toMatchObject([
      { reason: { kind: "instance_busy", running: 4, limit: 4 } },
    ]);
  });

  test("lets other instances go on beside a first run", () => {
    const d = drive();
    d.submit("a");
    expect(admitted(d.submit("b", { instanceId: "two" }))).toEqual(["b"]);
  });

  test("counts RAM that is promised and not yet used", () => {
    const d = drive();
    d.profile("k", { vramMb: null, ramMb: 600 });
    d.telemetry(null, { ramFreeMb: 1000 });
    expect(admitted(d.submit("a"))).toEqual(["a"]);
    expect(d.submit("b", { instanceId: "two" })).toMatchObject([
      { type: "block", reason: { kind: "ram", neededMb: 600, availableMb: 400 } },
    ]);
    d.absent("one");
    expect(admitted(d.finish("a"))).toEqual(["b"]);
  });

  test("rejects what needs more RAM than there is", () => {
    const d = drive();
    d.profile("k", { vramMb: null, ramMb: 5000 });
    d.telemetry(null, { ramFreeMb: 1000, ramTotalMb: 4000 });
    expect(d.submit("a")).toMatchObject([
      { type: "reject", shortfall: { resource: "system_ram_mb", needed: 5000, available: 4000 } },
    ]);
  });
});

describe("lanes, caps, order", () => {
  test("never uses more lanes than there are, and says so", () => {
    const d = drive({ maxLanes: 1 });
    d.submit("a");
    const [block] = d.submit("b", { instanceId: "two" });
    expect(block).toMatchObject({ type: "block", reason: { kind: "lanes", inUse: 1, limit: 1 } });
    expect(admitted(d.finish("a"))).toEqual(["b"]);
  });

  test("takes the higher priority first, then the earlier job", () => {
    const d = drive({ maxLanes: 1 });
    d.submit("running");
    d.submit("low", { instanceId: "two" });
    d.submit("high", { instanceId: "three", priority: 5 });
    expect(admitted(d.finish("running"))).toEqual(["high"]);
    expect(admitted(d.finish("high"))).toEqual(["low"]);
  });

  test("a reorder moves a job before the others", () => {
    const d = drive({ maxLanes: 1 });
    d.submit("running");
    d.submit("b", { instanceId: "two" });
    d.submit("c", { instanceId: "three" });
    d.send({ type: "job_reprioritized", jobId: "c", seq: -1 });
    expect(admitted(d.finish("running"))).toEqual(["c"]);
  });

  test("a removed job is never admitted, and the next of its class becomes the head", () => {
    const d = drive();
    d.submit("a");
    d.submit("b");
    d.submit("c");
    expect(blockReasonOf(d.state, "c")).toEqual({ kind: "behind", behindJobId: "b" });
    expect(d.send({ type: "job_removed", jobId: "b" })).toMatchObject([
      { type: "block", jobId: "c" },
    ]);
    expect(admitted(d.finish("a"))).toEqual(["c"]);
  });

  test("refuses new work below the disk limit and holds what is pending", () => {
    const d = drive({ maxLanes: 1, minFreeDiskMb: 100 });
    d.submit("a");
    d.submit("b");
    d.telemetry(null, { diskFreeMb: 50 });
    expect(d.finish("a")).toMatchObject([{ type: "block", jobId: "b", reason: { kind: "disk" } }]);
    expect(d.submit("c")).toMatchObject([
      { type: "reject", jobId: "c", shortfall: { resource: "disk_mb" } },
    ]);
    expect(admitted(d.telemetry(null, { diskFreeMb: 500 }))).toEqual(["b"]);
  });
});

describe("one GPU", () => {
  const gpu = (freeMb: number): Record<string, [number, number]> => ({ g: [24_000, freeMb] });

  test("counts promises against the free memory, beside a foreign program", () => {
    const d = drive();
    d.profile("ten", { vramMb: 10_000 });
    d.profile("seven", { vramMb: 7000 });
    d.profile("six", { vramMb: 6000 });
    d.telemetry(gpu(16_000));
    d.submit("a", { instanceId: "a", profileKey: keyOf("ten") });
    // The desktop holds 8; ours has 10 reserved and uses 2.
    d.telemetry(gpu(14_000), { vram: { a: 2000 } });
    expect(d.submit("b", { instanceId: "b", profileKey: keyOf("seven") })).toMatchObject([
      { type: "block", reason: { kind: "vram", neededMb: 7000, availableMb: 6000 } },
    ]);
    expect(admitted(d.submit("c", { instanceId: "c", profileKey: keyOf("six") }))).toEqual(["c"]);
    expect(gpuStatus(d.state)).toMatchObject([{ reservedMb: 16_000, availableMb: 0 }]);
  });

  test("a loaded instance pays only for what it does not hold", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.telemetry(gpu(24_000));
    expect(admits(d.submit("a"))).toMatchObject([{ gpuUuid: "g", reservedMb: 20_000 }]);
    d.ready("one", { gpuUuid: "g", observedVramMb: 18_000 });
    d.telemetry(gpu(4000), { vram: { one: 20_000 } });
    d.finish("a");
    expect(admits(d.submit("b"))).toMatchObject([{ reservedMb: 0 }]);
  });

  test("keeps the reservation of an ended job until a sample shows what it left", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.telemetry(gpu(24_000));
    d.submit("a");
    d.ready("one", { gpuUuid: "g" });
    d.finish("a");
    expect(admitted(d.submit("b", { instanceId: "two" }))).toEqual([]);
    expect(admitted(d.telemetry(gpu(24_000), { vram: { one: 0 } }))).toEqual(["b"]);
  });

  test("an unmeasured key has the GPU to itself", () => {
    const d = drive();
    d.profile("k", { vramMb: 1000 });
    d.telemetry(gpu(24_000));
    d.submit("a");
    expect(d.submit("new", { instanceId: "two", profileKey: keyOf("new") })).toMatchObject([
      { reason: { kind: "alone", scope: "gpu" } },
    ]);
    d.absent("one");
    expect(admits(d.finish("a"))).toMatchObject([{ jobId: "new", exclusive: true }]);
    expect(d.submit("b", { instanceId: "three" })).toMatchObject([
      { reason: { kind: "alone", behindJobId: "new" } },
    ]);
    // What it has left behind is not known before the next sample.
    expect(admitted(d.finish("new"))).toEqual([]);
    expect(admitted(d.telemetry(gpu(20_000), { vram: { two: 4000 } }))).toEqual(["b"]);
  });

  test("rejects what no GPU can hold, with numbers and advice", () => {
    const d = drive({ vramMarginMb: undefined });
    d.profile("k", { vramMb: 23_000 });
    d.telemetry(gpu(24_000));
    const [reject] = d.submit("a");
    expect(reject).toMatchObject({
      type: "reject",
      shortfall: { resource: "gpu_vram_mb", needed: 23_000, available: 22_800 },
    });
  });

  test("evicts an idle resident and admits on measured memory only", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.telemetry(gpu(4000), { vram: { one: 20_000 } });
    d.ready("one", { gpuUuid: "g", observedVramMb: 20_000 });
    d.telemetry(gpu(4000), { vram: { one: 20_000 } });
    expect(d.submit("b", { instanceId: "two" })).toMatchObject([
      { type: "evict", instanceId: "one", forJobId: "b", level: "sleep" },
      { type: "block", reason: { kind: "eviction", instanceIds: ["one"] } },
    ]);
    expect(d.send({ type: "eviction_finished", instanceId: "one", replied: true })).toEqual([
      { type: "wake", at: 5000 },
    ]);
    expect(admitted(d.telemetry(gpu(23_500), { vram: { one: 500 } }))).toEqual(["b"]);
  });

  test("ends a worker whose release is not seen in time", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.ready("one", { gpuUuid: "g", observedVramMb: 20_000 });
    d.telemetry(gpu(4000), { vram: { one: 20_000 } });
    d.submit("b", { instanceId: "two" });
    d.send({ type: "eviction_finished", instanceId: "one", replied: true });
    d.now = 4000;
    expect(d.telemetry(gpu(4000), { vram: { one: 20_000 } })).toEqual([]);
    d.now = 5000;
    expect(d.send({ type: "tick" })).toMatchObject([
      { type: "evict_refuted", instanceId: "one", replied: true, expectedMb: 20_000, seenMb: 0 },
    ]);
    d.absent("one");
    expect(admitted(d.telemetry(gpu(24_000)))).toEqual(["b"]);
  });

  test("every block reason can be said in words", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.telemetry(gpu(10_000));
    d.submit("a");
    const reason = blockReasonOf(d.state, "a");
    expect(reason && describeBlock(reason)).toBe(
      "needs 20000 MB on any GPU, 10000 MB available; other programs hold 14000 MB of it",
    );
  });
});

describe("what is kept", () => {
  test("cancelling a hundred thousand waiting jobs leaves nothing behind", () => {
    const d = drive({ maxLanes: 1 });
    d.submit("running");
    d.submit("first");
    for (let i = 0; i < 100_000; i++) {
      d.submit(`j${i}`);
      d.send({ type: "job_removed", jobId: `j${i}` });
    }
    const [line] = d.state.lines.values();
    expect(line?.size).toBe(1);
    expect(line?.heap.length).toBeLessThan(100);
    expect(admitted(d.finish("running"))).toEqual(["first"]);
  });

  test("a waiting job stands once in its class, however often its instance changes", () => {
    const d = drive({ maxLanes: 1 });
    d.submit("running");
    d.submit("waiting", { instanceId: "two" });
    for (let i = 0; i < 1000; i++) {
      d.ready("two");
      d.absent("two");
    }
    for (const jobClass of d.state.classes.values()) expect(jobClass.heap.length).toBeLessThan(100);
    expect(admitted(d.finish("running"))).toEqual(["waiting"]);
  });
});
