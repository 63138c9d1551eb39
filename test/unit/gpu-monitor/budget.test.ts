import { describe, expect, test } from "vitest";
import {
  bestDevice,
  budgetInput,
  computeBudget,
  dtypeInput,
  resolveDtype,
} from "../../../workers/gpu-monitor/budget.ts";
import { lostGpu } from "../../../workers/gpu-monitor/gpu.ts";
import { GIB, gpu, sample } from "./support.ts";

const LINUX = { platform: "linux", arch: "x64" };
const GB_FREE = (uuid: string, free: number): ReturnType<typeof gpu> =>
  gpu({ uuid, memory_free_bytes: free * GIB });

describe("compute_budget", () => {
  const budget = (
    gpus: Parameters<typeof sample>[0],
    input = {},
  ): ReturnType<typeof computeBudget> => computeBudget(budgetInput.parse(input), sample(gpus), 16);

  test("without a GPU is the seed's answer", () => {
    expect(budget([])).toMatchObject({
      max_agents: 8,
      max_concurrent_loras: 0,
      training_slots: 0,
      vram_per_gpu_mb: 0,
      single_gpu_mode: true,
    });
  });

  test("with one empty GPU equals the seed's arithmetic", () => {
    expect(budget([GB_FREE("a", 24)], { base_model_vram_mb: 4096 })).toMatchObject({
      max_agents: 4,
      max_concurrent_loras: 204,
      training_slots: 1,
      single_gpu_mode: true,
    });
  });

  test("counts what is free now on every GPU, the base model on the freest", () => {
    const answer = budget([GB_FREE("a", 2), GB_FREE("b", 10), GB_FREE("c", 6)], {
      base_model_vram_mb: 7 * 1024,
    });
    expect(answer).toMatchObject({ training_slots: 1, vram_per_gpu_mb: 2048, max_agents: 8 });
    expect(answer.max_concurrent_loras).toBe(20 + 30 + 61);
  });

  test("names a GPU whose memory is unknown and counts nothing for it", () => {
    const answer = budget([GB_FREE("a", 24), lostGpu({ ...gpu(), uuid: "b" }, "lost")]);
    expect(answer).toMatchObject({ unknown_gpus: ["b"], training_slots: 1, single_gpu_mode: true });
  });
});

describe("best_device", () => {
  test("is the freest GPU that is not lost, else mps, else cpu with the reason", () => {
    const gpus = [GB_FREE("a", 2), GB_FREE("b", 10), lostGpu({ ...gpu(), uuid: "c" }, "lost")];
    expect(bestDevice(sample(gpus), LINUX)).toMatchObject({ device: "cuda", gpu_uuid: "b" });
    const mac = { platform: "darwin", arch: "arm64" };
    expect(bestDevice(sample([]), mac).device).toBe("mps");
    expect(bestDevice(sample([], { notes: ["nvml: no library"] }), LINUX)).toEqual({
      device: "cpu",
      gpu_uuid: null,
      reason: "nvml: no library",
    });
  });
});

describe("resolve_dtype", () => {
  const resolve = (
    input: Record<string, unknown>,
    gpus = [GB_FREE("a", 20)],
    host: typeof LINUX & { override?: string } = LINUX,
  ): ReturnType<typeof resolveDtype> => resolveDtype(dtypeInput.parse(input), sample(gpus), host);

  test("takes float32 as long as the weights fit in 70 % of what is free", () => {
    const limit = Math.floor((20 * GIB * 0.7) / 4);
    expect(resolve({ param_count: limit })).toMatchObject({ dtype: "float32", fits: true });
    expect(resolve({ param_count: limit + 1 })).toMatchObject({ dtype: "bfloat16", fits: true });
    expect(resolve({ param_count: limit * 4 })).toMatchObject({ dtype: "bfloat16", fits: false });
  });

  test("subtracts the overhead and believes a given amount before a measured one", () => {
    expect(resolve({ param_count: 3e9, overhead_bytes: 10 * GIB }).dtype).toBe("bfloat16");
    expect(resolve({ param_count: 7e9, available_vram_bytes: 80 * GIB }).dtype).toBe("float32");
  });

  test("obeys the call's override before the environment's and refuses an unknown one", () => {
    const host = { ...LINUX, override: "fp16" };
    expect(resolve({ param_count: 1 }, [], host).dtype).toBe("float16");
    expect(resolve({ param_count: 1, dtype_override: "bf16" }, [], host).dtype).toBe("bfloat16");
    expect(() => resolve({ param_count: 1, dtype_override: "int3" })).toThrow("is no dtype");
  });

  test("is float32 on a CPU, and bfloat16 where nothing is known of the GPU", () => {
    expect(resolve({ param_count: 7e10 }, [])).toMatchObject({ device: "cpu", dtype: "float32" });
    const unknown = [gpu({ memory_free_bytes: null })];
    expect(resolve({ param_count: 1 }, unknown)).toMatchObject({ dtype: "bfloat16", fits: null });
  });
});
