import { expect, test } from "vitest";
import { Telemetry } from "../../../src/telemetry/index.ts";
import { Monitor, type MonitorClock } from "../../../workers/gpu-monitor/monitor.ts";
import { ScriptedSource } from "../../../workers/gpu-monitor/sources/scripted.ts";
import { scriptSchema } from "../../../workers/gpu-monitor/sources/script-schema.ts";
import { FakeProcesses, GIB, ManualClock, ManualSource } from "./support.ts";

const SPIKE_MS = 200;
const SPIKES = 100;
const PERIOD_MS = 2_000;
/** Readings of a busy machine come this much late. */
const MOST_LATE_MS = 60;

/** Golden-ratio steps: phases that are spread evenly and never the same. */
const spread = (index: number): number => (index * 0.618_033_988_75) % 1;

/** Process 100 rests at 2 GiB; once in each period it rises to a height and back. */
function script(shape: "flat" | "ramp"): { readonly heights: number[]; readonly parsed: unknown } {
  const heights: number[] = [];
  const timeline: object[] = [];
  const at = (ms: number, bytes: number): void => {
    timeline.push({ at_ms: ms, gpu: 0, processes: [{ pid: 100, bytes: Math.round(bytes) }] });
  };
  for (let index = 0; index < SPIKES; index += 1) {
    const height = (4 + 16 * spread(index * 7 + 3)) * GIB;
    const start = index * PERIOD_MS + 100 + spread(index) * 1_000;
    heights.push(height);
    at(index * PERIOD_MS, 2 * GIB);
    // A loader fills memory step by step and holds the top for 200 ms.
    if (shape === "ramp")
      for (let step = 1; step < 10; step += 1) at(start - 50 + step * 5, height * (step / 10));
    at(start, height);
    at(start + SPIKE_MS, 2 * GIB);
  }
  timeline.sort((a, b) => (a as { at_ms: number }).at_ms - (b as { at_ms: number }).at_ms);
  return {
    heights,
    parsed: { gpus: [{ uuid: "GPU-sim", memory_total_bytes: 24 * GIB }], timeline },
  };
}

test.for(["flat", "ramp"] as const)(
  "the peak of a %s spike that lasts 200 ms is measured to 5 %, however it falls between samples",
  async (shape) => {
    const { heights, parsed } = script(shape);
    const clock = new ManualClock();
    const monitorClock: MonitorClock = {
      now: () => clock.now(),
      wallNow: () => new Date(clock.now()),
      sleep: () => Promise.resolve(),
    };
    const device = new ScriptedSource(scriptSchema.parse(parsed), "", () => clock.now());
    await using monitor = new Monitor(device, 1, monitorClock);
    const source = new ManualSource();
    const processes = new FakeProcesses();
    const { pid_namespace: namespace } = await monitor.sample();
    processes.namespace = namespace;
    processes.add(100, 1);
    await using telemetry = new Telemetry({ source, processes, clock });
    telemetry.start();
    const errors: number[] = [];
    for (const [index, height] of heights.entries()) {
      telemetry.startJob(`j${index}`, "trainer", 100);
      for (let tick = 0; tick < 20; tick += 1) {
        const due = index * PERIOD_MS + tick * 100 + spread(index * 20 + tick) * MOST_LATE_MS;
        await clock.advance(due - clock.now());
        await source.push(await monitor.sample());
      }
      const { gpuPeakMb } = await telemetry.endJob(`j${index}`);
      errors.push(Math.abs(((gpuPeakMb?.["GPU-sim"] ?? 0) * 1024 ** 2) / height - 1));
    }
    expect(Math.max(...errors)).toBeLessThanOrEqual(0.05);
  },
);
