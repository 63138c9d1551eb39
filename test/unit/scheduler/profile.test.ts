import { array, assert, double, property } from "fast-check";
import { describe, expect, test } from "vitest";
import {
  addToQuantile,
  borrowPeak,
  emptyQuantile,
  foldSample,
  inputBucket,
  isMeasured,
  machineGpuModel,
  p95Of,
  parseProfileKey,
  profileKey,
  quantileOf,
  type ProfileKeyParts,
  type ResourceSample,
} from "../../../src/scheduler/index.ts";

const KEY: ProfileKeyParts = {
  capability: "inference",
  version: "1.2.9",
  configHash: "sha256:ab",
  bucket: 1024,
  gpuModel: "NVIDIA A|B",
};

const sample = (more: Partial<ResourceSample> = {}): ResourceSample => ({
  key: KEY,
  outcome: "completed",
  alone: true,
  vramPeakMb: 1000,
  ramPeakMb: 200,
  durationMs: 500,
  loadMs: null,
  cpuPercent: 50,
  usage: { tokens: 3 },
  seenAtMs: 7,
  driver: "550",
  ...more,
});

describe("keys", () => {
  test("a patch release keeps the key, a minor one does not", () => {
    expect(profileKey(KEY)).toBe(profileKey({ ...KEY, version: "1.2.0" }));
    expect(profileKey(KEY)).not.toBe(profileKey({ ...KEY, version: "1.3.0" }));
  });

  test("the parts can be read back, whatever the GPU is called", () => {
    expect(parseProfileKey(profileKey(KEY))).toEqual({ ...KEY, version: "1.2" });
    const bare = { ...KEY, version: "1.2", bucket: null, gpuModel: null };
    expect(parseProfileKey(profileKey(bare))).toEqual(bare);
    expect(parseProfileKey("anything else")).toBeNull();
  });

  test("a machine with several GPU models has one name for them", () => {
    expect(machineGpuModel(["B", "A", "B"])).toBe("A + B");
    expect(machineGpuModel(["A", "A"])).toBe("A");
    expect(machineGpuModel([])).toBeNull();
  });

  test("inputs are grouped by powers of two, unknown ones by themselves", () => {
    expect([1, 3, 700, 1000, 1024].map(inputBucket)).toEqual([1, 4, 512, 1024, 1024]);
    expect([null, undefined, 0, -5, Number.NaN].map(inputBucket)).toEqual(Array(5).fill(null));
  });
});

describe("samples", () => {
  test("are folded into counts, peaks, means and sums", () => {
    const first = foldSample(null, sample({ loadMs: 2000 }));
    const profile = foldSample(first, sample({ vramPeakMb: 3000, cpuPercent: 100, seenAtMs: 9 }));
    expect(profile).toMatchObject({
      count: 2,
      successes: 2,
      vramPeakMb: { count: 2, mean: 2000, max: 3000 },
      ramPeakMb: { max: 200 },
      loadMs: { count: 1, max: 2000 },
      cpuPercentMean: 75,
      usageTotals: { tokens: 6 },
      lastSeenMs: 9,
      driver: "550",
      vramLowerBoundMb: 0,
    });
    expect(JSON.parse(JSON.stringify(profile))).toEqual(profile);
  });

  test("beside other jobs say nothing about the peak of this one", () => {
    const profile = foldSample(null, sample({ alone: false }));
    expect(profile.vramPeakMb.count).toBe(0);
    expect(isMeasured(profile)).toBe(false);
  });

  test("that ran out of memory only raise the lower bound", () => {
    const before = foldSample(null, sample());
    const profile = foldSample(before, sample({ outcome: "out_of_memory", vramPeakMb: 9000 }));
    expect(profile.vramPeakMb.max).toBe(1000);
    expect(profile.vramLowerBoundMb).toBe(9000);
    expect(profile.successes).toBe(1);
  });

  test("that failed raise the peak but do not make a key measured", () => {
    const profile = foldSample(null, sample({ outcome: "failed", durationMs: 1 }));
    expect(profile.vramPeakMb.max).toBe(1000);
    expect(p95Of(profile.durationMs)).toBeNull();
    expect(isMeasured(profile)).toBe(false);
  });
});

describe("the P² quantile", () => {
  test("is exact for fewer than five values", () => {
    let sketch = emptyQuantile(0.95);
    expect(quantileOf(sketch)).toBeNull();
    for (const value of [5, 1, 3]) sketch = addToQuantile(sketch, value);
    expect(quantileOf(sketch)).toBe(5);
  });

  test("is near the true quantile of many values", () => {
    let sketch = emptyQuantile(0.95);
    // Powers of 5 modulo 10007: every value from 1 to 10006 once, in no order.
    let value = 1;
    for (let i = 1; i <= 10_006; i++) {
      value = (value * 5) % 10_007;
      sketch = addToQuantile(sketch, value);
    }
    expect(Math.abs((quantileOf(sketch) ?? 0) - 9506)).toBeLessThan(100);
    expect(sketch.heights).toHaveLength(5);
  });

  test("stays between the smallest and the largest value", () => {
    assert(
      property(array(double({ noNaN: true, min: 0, max: 1e6 }), { minLength: 1 }), (all) => {
        const sketch = all.reduce(addToQuantile, emptyQuantile(0.95));
        const value = quantileOf(sketch) ?? -1;
        return value >= Math.min(...all) && value <= Math.max(...all);
      }),
      { numRuns: 200 },
    );
  });
});

describe("a borrowed peak", () => {
  const measured = (more: Partial<ProfileKeyParts>, vramPeakMb: number) =>
    foldSample(null, sample({ key: { ...KEY, ...more }, vramPeakMb }));

  test("comes from the smallest larger input of the same version", () => {
    const relatives = [measured({ bucket: 4096 }, 4000), measured({ bucket: 2048 }, 2000)];
    expect(borrowPeak(KEY, relatives)).toMatchObject({ vramMb: 2500, ramMb: 250 });
  });

  test("comes from the newest earlier version otherwise", () => {
    const relatives = [
      measured({ version: "1.0" }, 1000),
      measured({ version: "1.1" }, 2000),
      measured({ version: "2.0" }, 9000),
    ];
    expect(borrowPeak(KEY, relatives)?.vramMb).toBe(2500);
    const unsized = { ...KEY, bucket: null };
    expect(borrowPeak(unsized, relatives)).toBeNull();
    expect(borrowPeak(unsized, [measured({ version: "0.9", bucket: null }, 800)])?.vramMb).toBe(
      1000,
    );
  });

  test("never comes from a smaller input, another config, another GPU or an unmeasured key", () => {
    const relatives = [
      measured({ bucket: 512 }, 1),
      measured({ configHash: "sha256:cd", bucket: 2048 }, 1),
      measured({ gpuModel: "other", bucket: 2048 }, 1),
      measured({ capability: "other", bucket: 2048 }, 1),
      foldSample(null, sample({ key: { ...KEY, bucket: 2048 }, outcome: "failed" })),
    ];
    expect(borrowPeak(KEY, relatives)).toBeNull();
  });
});
