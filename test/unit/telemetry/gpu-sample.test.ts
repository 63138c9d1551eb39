import { describe, expect, test } from "vitest";
import {
  pollingSource,
  sampleFromOriginal,
  watchChunkSchema,
} from "../../../src/telemetry/index.ts";
import { gpu, sample } from "../gpu-monitor/support.ts";
import { lostGpu } from "../../../workers/gpu-monitor/gpu.ts";
import { GIB, ManualClock } from "./support.ts";

test("the host reads every sample and event the shipped monitor sends", () => {
  const sent = sample([gpu(), lostGpu({ ...gpu(), uuid: "GPU-b", index: 1 }, "GPU is lost")]);
  expect(watchChunkSchema.parse(sent)).toMatchObject({
    gpus: [
      { uuid: "GPU-a", memory_free_bytes: 20 * GIB },
      { lost: true, processes: null },
    ],
  });
  const event = { type: "event", event: "of a later version", ts: "", gpu_uuid: "GPU-a" };
  expect(watchChunkSchema.parse(event)).toMatchObject({ event: "of a later version", detail: {} });
});

describe("a monitor of the original", () => {
  const status = {
    cpu_percent: 3,
    gpu_type: "NVIDIA",
    gpu_free_memory_mb: 20 * 1024,
    gpu_total_memory_mb: 24 * 1024,
    gpu_used_memory_mb: 4 * 1024,
    gpu_load_percent: 0,
  };

  test("is understood: megabytes become bytes, all its GPUs one device", () => {
    const listed = [{ pid: 7, gpu_index: 1, gpu_memory_mb: 512 }];
    expect(sampleFromOriginal(status, listed)).toMatchObject({
      source: "original",
      gpus: [
        {
          uuid: "original:all",
          memory_free_bytes: 20 * GIB,
          utilization_percent: 0,
          processes: [{ pid: 7, memory_bytes: GIB / 2 }],
        },
      ],
    });
  });

  test("without a process list leaves the holders unknown, without a GPU has none", () => {
    expect(sampleFromOriginal(status, []).gpus[0]?.processes).toBeNull();
    expect(sampleFromOriginal({ ...status, gpu_total_memory_mb: 0 }, null).gpus).toEqual([]);
    expect(() => sampleFromOriginal("broken", [])).toThrow("expected object");
  });

  test("is asked again and again, at most twice a second", async () => {
    const clock = new ManualClock();
    const monitor = {
      asked: 0,
      getSystemStatus(): Promise<unknown> {
        this.asked += 1;
        return Promise.resolve(status);
      },
      listProcesses: () => Promise.resolve([]),
    };
    const stop = new AbortController();
    const chunks = pollingSource(monitor, clock).watch(10, stop.signal)[Symbol.asyncIterator]();
    await chunks.next();
    const second = chunks.next();
    await clock.advance(499);
    expect(monitor.asked).toBe(1);
    await clock.advance(1);
    await second;
    expect(monitor.asked).toBe(2);
    stop.abort();
    expect(await chunks.next()).toMatchObject({ done: true });
  });
});
