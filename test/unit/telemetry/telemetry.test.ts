import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Telemetry, type TelemetryNotice } from "../../../src/telemetry/index.ts";
import {
  FakeProcesses,
  GIB,
  gpuSample,
  ManualClock,
  ManualSource,
  MIB,
  settled,
} from "./support.ts";

let clock = new ManualClock();
let source = new ManualSource();
let processes = new FakeProcesses();
let telemetry = new Telemetry();

beforeEach(async () => {
  clock = new ManualClock();
  source = new ManualSource();
  processes = new FakeProcesses();
  processes.add(100, 1, { rssBytes: 500 * MIB });
  processes.add(101, 100, { rssBytes: 100 * MIB });
  processes.add(200, 1, { rssBytes: 300 * MIB });
  processes.add(900, 1);
  telemetry = new Telemetry({ source, processes, clock });
  telemetry.start();
  await settled();
});
afterEach(async () => {
  await telemetry[Symbol.asyncDispose]();
  expect(source.open).toBe(0);
});

describe("the peak of a job", () => {
  test("is the highest sum over its instance's tree, children included, by GPU", async () => {
    telemetry.startJob("j1", "inference", 100);
    await source.push(gpuSample(5 * GIB, [{ pid: 100, bytes: 2 * GIB }]));
    await source.push(
      gpuSample(9 * GIB, [
        { pid: 100, bytes: 2 * GIB },
        { pid: 101, bytes: 4 * GIB },
        { pid: 900, bytes: 3 * GIB },
      ]),
    );
    await source.push(gpuSample(GIB, [{ pid: 101, bytes: GIB }]));
    expect(await telemetry.endJob("j1")).toMatchObject({
      jobId: "j1",
      instanceId: "inference",
      gpuPeakMb: { "GPU-a": 6 * 1024 },
      gpuMethod: "pid",
      gpuConfidence: 1,
      aloneInInstance: true,
    });
  });

  test("of many short jobs costs one search of their tree in 100 ms; each is read at its end", async () => {
    telemetry.trackInstance("sandbox", 200);
    await settled();
    const before = processes.searches;
    const peaks: unknown[] = [];
    for (let n = 0; n < 5; n += 1) {
      telemetry.startJob(`short-${n}`, "sandbox", 200);
      processes.set(200, { rssBytes: (400 + n) * MIB });
      peaks.push((await telemetry.endJob(`short-${n}`)).hostPeakMb);
    }
    expect(peaks).toEqual([400, 401, 402, 403, 404]);
    expect(processes.searches - before).toBeLessThanOrEqual(1);
  });

  test("is 0 for a job that was seen to hold nothing, and unknown where nobody looked", async () => {
    telemetry.startJob("cpu", "sandbox", 200);
    await source.push(gpuSample(5 * GIB, [{ pid: 900, bytes: 5 * GIB }]));
    expect((await telemetry.endJob("cpu")).gpuPeakMb).toEqual({ "GPU-a": 0 });

    await using blind = new Telemetry({ processes, clock });
    blind.startJob("j", "sandbox", 200);
    expect(await blind.endJob("j")).toMatchObject({ gpuPeakMb: null, gpuMethod: null });
    expect(blind.snapshot()).toMatchObject({ isLive: false, source: null, gpus: [] });
  });

  test("is read once more at the end of a job that the stream hardly saw", async () => {
    await source.push(gpuSample(0, []));
    telemetry.startJob("short", "inference", 100);
    source.latest = gpuSample(3 * GIB, [{ pid: 100, bytes: 3 * GIB }]);
    expect(await telemetry.endJob("short")).toMatchObject({
      gpuPeakMb: { "GPU-a": 3 * 1024 },
      gpuSamples: 1,
    });
  });

  test("of host memory and CPU comes from looks at the tree at 10 Hz", async () => {
    telemetry.startJob("j1", "inference", 100);
    await settled();
    for (let step = 1; step <= 10; step += 1) {
      processes.set(100, { rssBytes: (step === 5 ? 900 : 500) * MIB, cpuMs: step * 150 });
      await clock.advance(100);
    }
    const measured = await telemetry.endJob("j1");
    expect(measured).toMatchObject({ hostPeakMb: 1000, hostMethod: "rss", durationMs: 1000 });
    expect(measured.samples).toBeGreaterThanOrEqual(10);
    expect(measured.cpuPercentMean).toBeCloseTo(150, 5);
  });

  test("counts pages that the tree's processes share once, where the kernel tells", async () => {
    processes.pssShare = 0.5;
    telemetry.startJob("j1", "inference", 100);
    await settled();
    await clock.advance(100);
    await clock.advance(100);
    processes.set(100, { rssBytes: 1400 * MIB });
    await clock.advance(100);
    expect(await telemetry.endJob("j1")).toMatchObject({ hostPeakMb: 750, hostMethod: "pss" });
    // Two processes, once a second at most.
    expect(processes.pssReads).toBe(2);
  });

  test("is not slowed by a tree so large that its shared pages take long to measure", async () => {
    const slow = Promise.withResolvers<void>();
    processes.whilePss = () => slow.promise;
    telemetry.startJob("j1", "inference", 100);
    await settled();
    await clock.advance(500);
    slow.resolve();
    await settled();
    expect(processes.pssReads).toBe(2);
    // Half a second of measuring buys fifty seconds without.
    for (let second = 0; second < 49; second += 1) await clock.advance(1_000);
    expect(processes.pssReads).toBe(2);
    await clock.advance(1_100);
    expect(processes.pssReads).toBe(4);
  });

  test("is marked where another job ran in the instance at any time", async () => {
    telemetry.startJob("a", "inference", 100);
    telemetry.startJob("b", "inference", 100);
    const first = await telemetry.endJob("a");
    telemetry.startJob("c", "other", 200);
    expect([first.aloneInInstance, (await telemetry.endJob("b")).aloneInInstance]).toEqual([
      false,
      false,
    ]);
    expect(first.concurrentJobs).toBe(2);
    expect(await telemetry.endJob("c")).toMatchObject({ aloneInInstance: true, concurrentJobs: 1 });
  });

  test("belongs to one measurement: a second start, or an end without one, is a bug", async () => {
    telemetry.startJob("a", "inference", 100);
    expect(() => telemetry.startJob("a", "inference", 100)).toThrow(TypeError);
    await expect(telemetry.endJob("unknown")).rejects.toThrow(TypeError);
  });
});

describe("the rate", () => {
  test("is 10 Hz while a job runs and 1 Hz otherwise, with no moment unseen between; memory that comes back is awaited at 10 Hz for 5 s", async () => {
    expect(source.openedHz).toEqual([1]);
    telemetry.startJob("j1", "inference", 100);
    await settled();
    expect(source.openedHz).toEqual([1, 10]);
    expect(source.open).toBe(2);
    await source.push(gpuSample(0, []));
    expect(source.open).toBe(1);
    await telemetry.endJob("j1");
    await clock.advance(4_900);
    expect(source.openedHz).toEqual([1, 10]);
    await clock.advance(200);
    expect(source.openedHz).toEqual([1, 10, 1]);
  });
});

test("a machine without a GPU is asked once a second, whatever runs", async () => {
  await source.push({ type: "sample", source: "system", gpus: [] });
  telemetry.startJob("j1", "sandbox", 200);
  await clock.advance(1_000);
  expect(source.openedHz).toEqual([1]);
  expect((await telemetry.endJob("j1")).gpuPeakMb).toBeNull();
});

describe("the snapshot", () => {
  test("gives what admission needs: free, foreign, and what each instance holds", async () => {
    telemetry.trackInstance("inference", 100);
    await clock.advance(1000);
    await source.push(
      gpuSample(10 * GIB, [
        { pid: 101, bytes: 6 * GIB },
        { pid: 900, bytes: 3 * GIB },
      ]),
    );
    const snapshot = telemetry.snapshot();
    expect(snapshot).toMatchObject({ isLive: true, source: "nvml", ageMs: 0 });
    expect(snapshot.gpus).toEqual([
      {
        uuid: "GPU-a",
        index: 0,
        name: "Test GPU",
        totalMb: 24 * 1024,
        usedMb: 10 * 1024,
        freeMb: 14 * 1024,
        foreignMb: 4 * 1024,
        utilizationPercent: 0,
        lost: false,
        instances: { inference: { mb: 6 * 1024, method: "pid", confidence: 1 } },
      },
    ]);
    expect(snapshot.instances).toMatchObject([
      { instanceId: "inference", pid: 100, processes: 2, hostMb: 600, gpuPeakMb: 6 * 1024 },
    ]);
    // The machine's free memory is read for each of the two.
    expect({ ...telemetry.history().at(-1), ram: snapshot.ram }).toEqual(snapshot);
  });

  test("is not live once the monitor has been silent for three seconds", async () => {
    await source.push(gpuSample(0, []));
    expect(telemetry.snapshot().isLive).toBe(true);
    await clock.advance(3_001);
    expect(telemetry.snapshot()).toMatchObject({ isLive: false, ageMs: 3_001 });
  });
});

describe("a monitor that breaks", () => {
  test("is told of, and asked again until it answers", async () => {
    const notices: TelemetryNotice["type"][] = [];
    using _subscription = telemetry.subscribe((notice) => notices.push(notice.type));
    await source.fail(new Error("worker exited"));
    expect(source.open).toBe(0);
    await clock.advance(500);
    await source.push({ type: "sample", gpus: "nonsense" });
    await clock.advance(1_000);
    await source.push(gpuSample(0, []));
    await source.push({ type: "event", event: "throttle", ts: "2026-01-01", gpu_uuid: "GPU-a" });
    expect(notices).toEqual(["monitor_lost", "monitor_lost", "gpu_sample", "gpu_event"]);
  });
});

describe("a device that does not say who holds its memory", () => {
  test("is attributed by difference to the one instance that loads or runs", async () => {
    await source.push(gpuSample(2 * GIB, null));
    telemetry.trackInstance("inference", 100);
    await source.push(gpuSample(8 * GIB, null));
    telemetry.startJob("j1", "inference", 100);
    await source.push(gpuSample(11 * GIB, null));
    await source.push(gpuSample(9 * GIB, null));
    expect(await telemetry.endJob("j1")).toMatchObject({
      gpuPeakMb: { "GPU-a": 9 * 1024 },
      gpuMethod: "delta",
      gpuConfidence: 0.5,
    });
    expect(telemetry.snapshot().gpus[0]).toMatchObject({
      foreignMb: 2 * 1024,
      instances: { inference: { mb: 7 * 1024, method: "delta" } },
    });
  });

  test("gives memory of an instance that ended to nobody else", async () => {
    await source.push(gpuSample(0, null));
    telemetry.startJob("a", "first", 100);
    await source.push(gpuSample(8 * GIB, null));
    await telemetry.endJob("a");
    telemetry.untrackInstance("first");
    telemetry.startJob("b", "second", 200);
    await source.push(gpuSample(10 * GIB, null));
    await source.push(gpuSample(2 * GIB, null));
    expect((await telemetry.endJob("b")).gpuPeakMb).toEqual({ "GPU-a": 2 * 1024 });
    expect(telemetry.snapshot().gpus[0]?.instances["second"]?.mb).toBe(2 * 1024);
  });
});
