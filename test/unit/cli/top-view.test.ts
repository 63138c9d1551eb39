import { describe, expect, test } from "vitest";
import type { JobMeasurement, TelemetrySnapshot } from "../../../src/telemetry/index.ts";
import { renderTop } from "../../../src/cli/top-view.ts";

const GPU: TelemetrySnapshot["gpus"][number] = {
  uuid: "GPU-a",
  index: 0,
  name: "NVIDIA GeForce RTX 4090",
  totalMb: 24_576,
  usedMb: 12_288,
  freeMb: 12_288,
  foreignMb: 1_024,
  utilizationPercent: 97,
  lost: false,
  instances: {
    inference: { mb: 8_192, method: "pid", confidence: 1 },
    trainer: { mb: 3_072, method: "delta", confidence: 0.5 },
  },
};

const PEAKS = { cpuPercent: 0, hostPeakMb: 0, gpuPeakMb: 0 };

function snapshot(rest: Partial<TelemetrySnapshot> = {}): TelemetrySnapshot {
  return {
    atMs: 0,
    isLive: true,
    source: "nvml",
    ageMs: 100,
    gpus: [GPU],
    instances: [
      {
        instanceId: "inference",
        pid: 4242,
        processes: 3,
        hostMb: 900,
        hostMethod: "pss",
        ...PEAKS,
        jobs: ["j"],
      },
      {
        instanceId: "trainer",
        pid: 4343,
        processes: 1,
        hostMb: 2_048,
        hostMethod: "rss",
        ...PEAKS,
        jobs: [],
      },
      {
        instanceId: "sandbox",
        pid: 4444,
        processes: 1,
        hostMb: null,
        hostMethod: "rss",
        ...PEAKS,
        jobs: [],
      },
    ],
    ram: { totalMb: 65_536, availableMb: 32_768 },
    ...rest,
  };
}

const JOB: JobMeasurement = {
  jobId: "0b0c6a34-6c0e-4a51-9d59-3c1b0e4b2f10",
  instanceId: "inference",
  durationMs: 83_000,
  samples: 1,
  gpuSamples: 1,
  gpuPeakMb: { "GPU-a": 8_192 },
  gpuMethod: "pid",
  gpuConfidence: 1,
  hostPeakMb: 950,
  hostMethod: "pss",
  cpuPercentMean: 312.4,
  aloneInInstance: true,
  concurrentJobs: 1,
};

describe("the table of top", () => {
  test("shows GPUs, instances and jobs with their peaks in 80 columns", () => {
    expect(`\n${renderTop({ snapshot: snapshot(), jobs: [JOB] }).join("\n")}\n`).toBe(`
gpu: nvml 0.1 s ago   ram: [#####     ] 32.0G free of 64.0G

GPU                         USED                 FREE  OTHERS  LOAD
0 NVIDIA GeForce RTX 4090  12.0G  [#####     ]  12.0G    1.0G   97%

INSTANCE    PID  PROCS   RAM   VRAM  JOBS
inference  4242      3  900M   8.0G     1
trainer    4343      1  2.0G  ~3.0G     0
sandbox    4444      1     ?      -     0

JOB                                  INSTANCE    TIME   CPU  RAM PEAK  VRAM PEAK
0b0c6a34-6c0e-4a51-9d59-3c1b0e4b2f…  inference  1m23s  312%      950M       8.0G
`);
  });

  test("never writes a line wider than the terminal, and nothing that moves its cursor", () => {
    const name = "A very long name \u001b[2J of a device, 日本語 ".repeat(4);
    const wide = snapshot({
      gpus: [
        { ...GPU, name },
        { ...GPU, index: 1, lost: true, usedMb: null },
      ],
    });
    for (const width of [80, 60, 40]) {
      const lines = renderTop({ snapshot: wide, jobs: [JOB], width });
      expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
      expect(lines.join("")).not.toContain("\u001b");
    }
    expect(renderTop({ snapshot: wide, jobs: [] }).join("\n")).toContain("LOST");
  });

  test("says so where there is no monitor, a silent one, or no GPU", () => {
    const blind = snapshot({ source: null, ageMs: null, isLive: false, gpus: [] });
    expect(renderTop({ snapshot: blind, jobs: [] }).join("\n")).toContain("has not answered");
    expect(renderTop({ snapshot: snapshot({ gpus: [] }), jobs: [] })).toContain("no GPU");
    const silent = renderTop({ snapshot: snapshot({ isLive: false, ageMs: 9_000 }), jobs: [] });
    expect(silent[0]).toContain("9.0 s ago (silent)");
    expect(silent.join("\n")).toContain("FREE?");
  });

  test("shows what was not measured as unknown, never as nothing", () => {
    const unknown = { ...JOB, gpuPeakMb: null, hostPeakMb: null, cpuPercentMean: null };
    const [, line] = renderTop({ snapshot: snapshot(), jobs: [unknown] }).slice(-2);
    expect(line?.match(/\?/gu)).toHaveLength(3);
  });
});
