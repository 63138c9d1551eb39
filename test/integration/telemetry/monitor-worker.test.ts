import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { probeCage } from "../../../src/process/index.ts";
import type { Cage } from "../../../src/protocol/index.ts";
import {
  Telemetry,
  type TelemetryNotice,
  type TelemetrySnapshot,
} from "../../../src/telemetry/index.ts";
import { setDevice } from "../../fixtures/gpu/simulated-vram.ts";
import { Holder, MonitorWorker } from "./monitor-worker.ts";

const GIB = 1024 ** 3;
const SCRIPT = {
  gpus: [{ uuid: "GPU-sim-0", name: "Simulated 24 GB", memory_total_bytes: 24 * GIB }],
  timeline: [{ at_ms: 0, gpu: 0, foreign_bytes: 2 * GIB }],
};
const strongest: Cage = (await probeCage()).cage;

let worker: MonitorWorker;
let telemetry: Telemetry;
beforeAll(async () => {
  worker = await MonitorWorker.start(SCRIPT);
  telemetry = new Telemetry({ source: worker.source() });
  telemetry.start();
});
afterAll(async () => {
  await telemetry[Symbol.asyncDispose]();
  await worker[Symbol.asyncDispose]();
});

/** The first snapshot with a GPU sample that fits. */
async function seen(fits: (snapshot: TelemetrySnapshot) => boolean): Promise<TelemetrySnapshot> {
  const { promise, resolve } = Promise.withResolvers<TelemetrySnapshot>();
  using _subscription = telemetry.subscribe((notice) => {
    if (notice.type === "gpu_sample" && fits(notice.snapshot)) resolve(notice.snapshot);
  });
  return await promise;
}

const usedMb = ({ gpus }: TelemetrySnapshot): number | null | undefined => gpus[0]?.usedMb;

describe("telemetry on a real monitor worker", () => {
  test.for([...new Set<Cage>(["group", strongest])])(
    "measures a process in cage %s, and sees its memory back when it is killed",
    async (cage) => {
      await using holder = await Holder.start(worker.vramFolder, "GPU-sim-0", 4 * GIB, cage);
      telemetry.startJob(`job-${cage}`, "inference", holder.pid);
      const { gpus } = await seen((snapshot) => usedMb(snapshot) === 6 * 1024);
      expect(gpus).toMatchObject([
        {
          freeMb: 18 * 1024,
          foreignMb: 2 * 1024,
          instances: { inference: { mb: 4 * 1024, method: "pid", confidence: 1 } },
        },
      ]);
      const measured = await telemetry.endJob(`job-${cage}`);
      expect(measured).toMatchObject({
        gpuPeakMb: { "GPU-sim-0": 4 * 1024 },
        gpuMethod: "pid",
        aloneInInstance: true,
      });
      expect(measured.hostPeakMb).toBeGreaterThan(20);
      await holder.kill();
      await seen((snapshot) => usedMb(snapshot) === 2 * 1024);
      telemetry.untrackInstance("inference");
    },
  );

  test("measures a job that is over before the stream has seen it", async () => {
    await using holder = await Holder.start(worker.vramFolder, "GPU-sim-0", 3 * GIB, "group");
    telemetry.startJob("short", "inference", holder.pid);
    expect((await telemetry.endJob("short")).gpuPeakMb).toEqual({ "GPU-sim-0": 3 * 1024 });
    telemetry.untrackInstance("inference");
    await holder.kill();
    await seen((snapshot) => usedMb(snapshot) === 2 * 1024);
  });

  test("does not take a stranger's process for an own one", async () => {
    await using stranger = await Holder.start(worker.vramFolder, "GPU-sim-0", GIB, "group");
    const { gpus } = await seen((snapshot) => usedMb(snapshot) === 3 * 1024);
    expect(gpus[0]).toMatchObject({ foreignMb: 3 * 1024, instances: {} });
    await stranger.kill();
    await seen((snapshot) => usedMb(snapshot) === 2 * 1024);
  });

  test("passes on what happens to the device, and follows a device that changes", async () => {
    const events: TelemetryNotice[] = [];
    using _subscription = telemetry.subscribe((notice) => {
      if (notice.type === "gpu_event") events.push(notice);
    });
    setDevice(worker.vramFolder, "GPU-sim-0", { throttle_reasons: ["hw_thermal_slowdown"] });
    await expect.poll(() => events.length, { timeout: 10_000 }).toBeGreaterThan(0);
    setDevice(worker.vramFolder, "GPU-sim-0", { lost: true });
    const { gpus } = await seen((snapshot) => snapshot.gpus[0]?.lost === true);
    expect(gpus[0]).toMatchObject({ freeMb: null, foreignMb: null });
    await expect.poll(() => events.length, { timeout: 10_000 }).toBeGreaterThan(1);
    expect(events).toMatchObject([
      { event: { event: "throttle", gpu_uuid: "GPU-sim-0" } },
      { event: { event: "gpu_lost", gpu_uuid: "GPU-sim-0" } },
    ]);
  });

  test("answers the original's questions over the wire", async () => {
    expect(await worker.post("/get_system_status", {})).toMatchObject({ gpu_type: "Simulated" });
    expect(await worker.post("/list_processes", {})).toEqual([]);
  });

  test("is told when the monitor dies, and stops being live", async () => {
    const lost = Promise.withResolvers<TelemetryNotice>();
    using _subscription = telemetry.subscribe((notice) => {
      if (notice.type === "monitor_lost") lost.resolve(notice);
    });
    await worker.connection.kill();
    expect(await lost.promise).toMatchObject({ type: "monitor_lost" });
  });
});
