import { describe, expect, test } from "vitest";
import type { Decision } from "../../../src/scheduler/index.ts";
import { admitted, drive, keyOf, type Driver } from "./support.ts";

const MINUTE_MS = 60_000;

/** Idle residents of one GPU, loaded in this order a minute apart. */
function residents(d: Driver, heldMb: Record<string, number>, totalMb: number): void {
  for (const id of Object.keys(heldMb)) {
    d.ready(id, { gpuUuid: "g" });
    d.now += MINUTE_MS;
  }
  const used = Object.values(heldMb).reduce((sum, mb) => sum + mb, 0);
  d.telemetry({ g: [totalMb, totalMb - used] }, { vram: heldMb });
}

function evicted(decisions: readonly Decision[]): string[] {
  return decisions
    .filter(({ type }) => type === "evict")
    .map((each) => ("instanceId" in each ? each.instanceId : ""));
}

describe("the cheapest sufficient set of residents", () => {
  test("is the one that has been idle longest, among equals", () => {
    const d = drive();
    d.profile("k", { vramMb: 5000 });
    residents(d, { old: 8000, young: 8000, youngest: 8000 }, 24_000);
    expect(evicted(d.submit("a", { instanceId: "new" }))).toEqual(["old"]);
  });

  test("leaves alone what would free more than enough at a higher price", () => {
    const d = drive();
    d.profile("k", { vramMb: 5000 });
    residents(d, { small: 2000, medium: 3000 }, 24_000);
    d.now += 10 * MINUTE_MS;
    d.ready("large", { gpuUuid: "g" });
    d.telemetry({ g: [24_000, 0] }, { vram: { small: 2000, medium: 3000, large: 19_000 } });
    // Two that have been idle for long together cost less to load again than the one in use last.
    expect(evicted(d.submit("a", { instanceId: "new" }))).toEqual(["small", "medium"]);
  });

  test("spares what pending jobs want, but not at any price", () => {
    const d = drive({ maxLanes: 2 });
    d.profile("k", { vramMb: 5000 });
    d.profile("cpu", { vramMb: 0, ramMb: 9000 });
    residents(d, { wanted: 8000, other: 8000, third: 8000 }, 24_000);
    d.telemetry(
      { g: [24_000, 0] },
      { vram: { wanted: 8000, other: 8000, third: 8000 }, ramFreeMb: 1 },
    );
    d.submit("w", { instanceId: "wanted", profileKey: keyOf("cpu") });
    expect(evicted(d.submit("a", { instanceId: "new" }))).toEqual(["other"]);
    d.profile("huge", { vramMb: 24_000 });
    d.send({ type: "job_removed", jobId: "a" });
    const all = evicted(
      d.submit("h", { instanceId: "new", profileKey: keyOf("huge"), priority: 9 }),
    );
    expect(all.toSorted()).toEqual(["third", "wanted"]);
  });

  test("is found among many residents too", () => {
    const d = drive();
    d.profile("k", { vramMb: 4500 });
    const held = Object.fromEntries(Array.from({ length: 16 }, (_, i) => [`i${i}`, 1000]));
    residents(d, held, 16_000);
    expect(evicted(d.submit("a", { instanceId: "new" })).toSorted()).toEqual([
      "i0",
      "i1",
      "i2",
      "i3",
      "i4",
    ]);
  });

  test("is not asked for when nothing would be enough", () => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.ready("one", { gpuUuid: "g" });
    d.telemetry({ g: [24_000, 4000] }, { vram: { one: 5000 } });
    expect(d.submit("a", { instanceId: "new" })).toMatchObject([
      { type: "block", reason: { kind: "vram", availableMb: 4000, outsideMb: 15_000 } },
    ]);
  });
});

describe("a release", () => {
  const asked = (): Driver => {
    const d = drive();
    d.profile("k", { vramMb: 20_000 });
    d.ready("one", { gpuUuid: "g" });
    d.telemetry({ g: [24_000, 4000] }, { vram: { one: 20_000 } });
    expect(evicted(d.submit("a", { instanceId: "two" }))).toEqual(["one"]);
    return d;
  };

  test("that is not answered ends the worker at once", () => {
    const d = asked();
    const decisions = d.send({ type: "eviction_finished", instanceId: "one", replied: false });
    expect(decisions).toMatchObject([{ type: "evict_refuted", instanceId: "one" }]);
    expect(d.send({ type: "eviction_finished", instanceId: "one", replied: true })).toEqual([]);
  });

  test("is judged by a sample taken after the reply", () => {
    const d = asked();
    d.now = 100;
    d.send({ type: "eviction_finished", instanceId: "one", replied: true });
    const before = { gpus: [{ uuid: "g", totalMb: 24_000, freeMb: 24_000 }], ramFreeMb: null };
    const early = { ...before, diskFreeMb: null, instances: [], takenAt: 50 };
    expect(d.send({ type: "telemetry", ...early })).not.toContainEqual({ type: "evict_refuted" });
    expect(d.state.instances.get("one")?.eviction).not.toBeNull();
    d.send({ type: "telemetry", ...early, takenAt: 150 });
    expect(d.state.instances.get("one")?.eviction).toBeNull();
  });

  test("of a worker that dies meanwhile needs no answer", () => {
    const d = asked();
    d.absent("one");
    expect(admitted(d.telemetry({ g: [24_000, 24_000] }))).toEqual(["a"]);
    expect(d.send({ type: "eviction_finished", instanceId: "one", replied: false })).toEqual([]);
  });

  test("is believed when the monitor has fallen silent", () => {
    const d = asked();
    d.send({ type: "eviction_finished", instanceId: "one", replied: true });
    d.telemetry(null);
    d.now = 5000;
    expect(admitted(d.send({ type: "tick" }))).toEqual(["a"]);
  });

  test("keeps its own instance's jobs waiting until it is over", () => {
    const d = asked();
    expect(d.submit("b", { instanceId: "one" })).toMatchObject([
      { reason: { kind: "eviction", instanceIds: ["one"] } },
    ]);
  });
});

test("events about unknown jobs and instances change nothing", () => {
  const d = drive();
  expect(d.finish("nobody")).toEqual([]);
  expect(d.send({ type: "job_removed", jobId: "nobody" })).toEqual([]);
  expect(d.send({ type: "job_reprioritized", jobId: "nobody", priority: 1 })).toEqual([]);
  expect(d.send({ type: "eviction_finished", instanceId: "x", replied: true })).toEqual([]);
  expect(d.send({ type: "profile_changed", key: keyOf("x"), profile: null })).toEqual([]);
});

test("a job that was submitted twice is one job", () => {
  const d = drive();
  d.submit("a");
  expect(d.submit("a")).toEqual([]);
});

test("a cleared profile makes the next run measure again", () => {
  const d = drive();
  d.profile("k", { vramMb: 1000 });
  d.telemetry({ g: [24_000, 24_000] });
  d.send({ type: "profile_changed", key: keyOf("k"), profile: null });
  expect(d.submit("a")).toMatchObject([{ type: "admit", exclusive: true }]);
});
