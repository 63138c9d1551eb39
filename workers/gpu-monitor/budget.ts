import { CjmError, z } from "cjm-substrate/worker";
import type { Gpu, Sample } from "./model.ts";

const MIB = 1024 * 1024;
/** Defaults of the seed's hardware probe. */
const VRAM_PER_LORA_MB = 100;
const MIN_TRAINING_VRAM_MB = 4096;
/** Share of the free memory a model's weights may take; the rest is activations and cache. */
const WEIGHTS_SHARE = 0.7;
const BYTES_PER_PARAMETER = { float32: 4, bfloat16: 2, float16: 2 } as const;

const megabytes = z.number().nonnegative();

export const budgetInput = z.strictObject({
  /** Of a base model that is still to be loaded; one that is loaded is in use already. */
  base_model_vram_mb: megabytes.default(0),
  vram_per_lora_mb: z.number().positive().default(VRAM_PER_LORA_MB),
  min_training_vram_mb: megabytes.default(MIN_TRAINING_VRAM_MB),
});
export const budgetOutput = z.object({
  max_agents: z.int(),
  max_concurrent_loras: z.int(),
  training_slots: z.int(),
  /** What every GPU can give, so the smallest one's; 0 without a GPU. */
  vram_per_gpu_mb: megabytes,
  single_gpu_mode: z.boolean(),
  /** Free memory by GPU after the base model, which is put where most is free. */
  gpus: z.array(
    z.object({ uuid: z.string(), vram_total_mb: megabytes.nullable(), vram_free_mb: megabytes }),
  ),
  /** GPUs whose free memory could not be read; they count for nothing above. */
  unknown_gpus: z.array(z.string()),
  source: z.string(),
});

/**
 * Concurrency limits from the memory that is free now on every GPU.
 *
 * The rules are the seed's `compute_budget`; it looked at the first GPU's total only.
 */
export function computeBudget(
  input: z.output<typeof budgetInput>,
  sample: Sample,
  cpuCount: number,
): z.output<typeof budgetOutput> {
  const usable = sample.gpus.filter((gpu) => gpu.memory_free_bytes !== null);
  const gpus = usable
    .map((gpu) => ({
      uuid: gpu.uuid,
      vram_total_mb: toMb(gpu.memory_total_bytes),
      vram_free_mb: toMb(gpu.memory_free_bytes) ?? 0,
    }))
    .sort((a, b) => b.vram_free_mb - a.vram_free_mb);
  const [base] = gpus;
  if (base !== undefined) {
    base.vram_free_mb = Math.max(0, base.vram_free_mb - input.base_model_vram_mb);
  }
  const halfOfCpus = Math.max(1, Math.floor(cpuCount / 2));
  const free = gpus.map((gpu) => gpu.vram_free_mb);
  const loras = free.reduce((sum, mb) => sum + Math.floor(mb / input.vram_per_lora_mb), 0);
  return {
    max_agents: gpus.length === 0 ? halfOfCpus : Math.min(halfOfCpus, gpus.length * 4),
    max_concurrent_loras: gpus.length === 0 ? 0 : Math.max(1, loras),
    training_slots: free.filter((mb) => mb >= input.min_training_vram_mb).length,
    vram_per_gpu_mb: gpus.length === 0 ? 0 : Math.min(...free),
    single_gpu_mode: gpus.length <= 1,
    gpus,
    unknown_gpus: sample.gpus.filter((gpu) => !usable.includes(gpu)).map((gpu) => gpu.uuid),
    source: sample.source,
  };
}

export const bestDeviceOutput = z.object({
  device: z.enum(["cuda", "mps", "cpu"]),
  /** The one with the most free memory, where the device is `cuda`. */
  gpu_uuid: z.string().nullable(),
  reason: z.string(),
});

/** `cuda` before `mps` before `cpu`; PyTorch calls AMD's devices `cuda` too. */
export function bestDevice(
  sample: Sample,
  host: { readonly platform: string; readonly arch: string },
): z.output<typeof bestDeviceOutput> {
  const gpu = freest(sample.gpus);
  if (gpu !== undefined) {
    const name = gpu.name ?? gpu.uuid;
    return { device: "cuda", gpu_uuid: gpu.uuid, reason: `${name}, seen by ${sample.source}` };
  }
  if (host.platform === "darwin" && host.arch === "arm64") {
    return { device: "mps", gpu_uuid: null, reason: "Apple silicon" };
  }
  const reason = sample.gpus.length > 0 ? "every GPU is lost" : sample.notes.join("; ");
  return { device: "cpu", gpu_uuid: null, reason: reason === "" ? "no GPU" : reason };
}

const dtypeName = z.enum(["float32", "bfloat16", "float16"]);
const ALIASES: Readonly<Record<string, z.output<typeof dtypeName>>> = {
  float32: "float32",
  fp32: "float32",
  bfloat16: "bfloat16",
  bf16: "bfloat16",
  float16: "float16",
  fp16: "float16",
};

export const dtypeInput = z.strictObject({
  param_count: z.int().positive(),
  /** Null takes the best device. */
  device: z.enum(["cuda", "mps", "cpu"]).nullable().default(null),
  /** 0 measures: the free memory of the GPU where most is free. */
  available_vram_bytes: z.int().nonnegative().default(0),
  /** Reserved by models that are still to be loaded. */
  overhead_bytes: z.int().nonnegative().default(0),
  dtype_override: z.string().nullable().default(null),
});
export const dtypeOutput = z.object({
  dtype: dtypeName,
  device: z.enum(["cuda", "mps", "cpu"]),
  gpu_uuid: z.string().nullable(),
  /** Weights in this dtype. */
  needed_bytes: z.int(),
  /** What weights may take; null where memory is not the limit or not known. */
  usable_bytes: z.int().nullable(),
  fits: z.boolean().nullable(),
  reason: z.string(),
});
type DtypeAnswer = z.output<typeof dtypeOutput>;

/**
 * The most precise dtype whose weights fit: an override, else float32, else bfloat16.
 *
 * The rules are the seed's `resolve_model_dtype`.
 *
 * @throws {CjmError} `CAPABILITY_INPUT` for an override that is no dtype.
 */
export function resolveDtype(
  input: z.output<typeof dtypeInput>,
  sample: Sample,
  host: { readonly platform: string; readonly arch: string; readonly override?: string },
): DtypeAnswer {
  const device = input.device ?? bestDevice(sample, host).device;
  const gpu = device === "cuda" ? freest(sample.gpus) : undefined;
  const usableBytes = usableFor(input, device, gpu);
  const answer = (dtype: DtypeAnswer["dtype"], reason: string): DtypeAnswer => {
    const neededBytes = input.param_count * BYTES_PER_PARAMETER[dtype];
    return {
      dtype,
      device,
      gpu_uuid: gpu?.uuid ?? null,
      needed_bytes: neededBytes,
      usable_bytes: usableBytes,
      fits: usableBytes === null ? null : neededBytes <= usableBytes,
      reason,
    };
  };
  const override = input.dtype_override ?? host.override ?? "";
  if (override !== "") return answer(parseDtype(override), "asked for by name");
  if (device === "cpu") return answer("float32", "memory of the CPU is not limited by VRAM");
  if (usableBytes === null) return answer("bfloat16", "free memory is not known");
  const full = answer("float32", `fits in ${WEIGHTS_SHARE} of the free memory`);
  return full.fits === true ? full : answer("bfloat16", "float32 does not fit");
}

function usableFor(
  input: z.output<typeof dtypeInput>,
  device: string,
  gpu: Gpu | undefined,
): number | null {
  if (device === "cpu") return null;
  const available = input.available_vram_bytes || (gpu?.memory_free_bytes ?? null);
  if (available === null) return null;
  return Math.max(0, Math.floor((available - input.overhead_bytes) * WEIGHTS_SHARE));
}

function parseDtype(name: string): DtypeAnswer["dtype"] {
  const dtype = ALIASES[name];
  if (dtype !== undefined) return dtype;
  const known = Object.keys(ALIASES).join(", ");
  throw new CjmError("CAPABILITY_INPUT", `"${name}" is no dtype; known are ${known}`, {
    fieldsInvalid: ["dtype_override"],
  });
}

function freest(gpus: readonly Gpu[]): Gpu | undefined {
  return gpus
    .filter((gpu) => !gpu.lost)
    .toSorted((a, b) => (b.memory_free_bytes ?? -1) - (a.memory_free_bytes ?? -1))[0];
}

function toMb(value: number | null): number | null {
  return value === null ? null : value / MIB;
}
