import { z } from "cjm-substrate/worker";

/** Where the numbers of an answer come from. */
export const SOURCE_NAMES = ["nvml", "nvidia-smi", "amd", "scripted", "system"] as const;
export type SourceName = (typeof SOURCE_NAMES)[number];

const bytes = z.int().nonnegative().nullable();

export const gpuProcessSchema = z.object({
  /** As seen by this monitor; a process of another PID namespace may have no number here. */
  pid: z.int(),
  memory_bytes: bytes,
  kind: z.enum(["compute", "graphics", "both", "unknown"]),
  name: z.string().nullable(),
  /** Descends from the host that started this monitor; null where that cannot be seen. */
  own: z.boolean().nullable(),
});
export type GpuProcess = z.output<typeof gpuProcessSchema>;

/**
 * One device a job can be given: a whole GPU, or one MIG instance of a GPU that is in MIG mode.
 * A value that could not be read is null and `unavailable` says why, by field name.
 */
export const gpuSchema = z.object({
  uuid: z.string(),
  /** Position in the source's own order; MIG instances share their parent's. */
  index: z.int().nonnegative(),
  name: z.string().nullable(),
  vendor: z.enum(["nvidia", "amd", "simulated"]),
  /** UUID of the GPU that a MIG instance is part of. */
  parent_uuid: z.string().nullable(),
  memory_total_bytes: bytes,
  /** Includes the driver's own reserve, so that used + free = total. */
  memory_used_bytes: bytes,
  memory_free_bytes: bytes,
  memory_reserved_bytes: bytes,
  utilization_percent: z.number().nullable(),
  temperature_celsius: z.number().nullable(),
  power_watts: z.number().nullable(),
  power_limit_watts: z.number().nullable(),
  throttle_reasons: z.array(z.string()).nullable(),
  ecc_uncorrected_errors: z.int().nonnegative().nullable(),
  /** The driver no longer reaches the device; every measurement is null. */
  lost: z.boolean(),
  processes: z.array(gpuProcessSchema).nullable(),
  unavailable: z.record(z.string(), z.string()),
});
export type Gpu = z.output<typeof gpuSchema>;

/** One reading of every GPU. */
export const sampleSchema = z.object({
  type: z.literal("sample"),
  source: z.enum(SOURCE_NAMES),
  seq: z.int().nonnegative(),
  /** Wall clock, for people; `monotonic_ms` orders samples and never steps back. */
  ts: z.iso.datetime(),
  monotonic_ms: z.number(),
  /** Time the reading itself took, in milliseconds. */
  took_ms: z.number(),
  /** `pid:[…]` of the namespace in which `pid` of every process is meant. */
  pid_namespace: z.string().nullable(),
  driver: z.string().nullable(),
  gpus: z.array(gpuSchema),
  /** Why there are no GPUs, or why better sources were not used. */
  notes: z.array(z.string()),
});
export type Sample = z.output<typeof sampleSchema>;

export const eventSchema = z.object({
  type: z.literal("event"),
  event: z.enum(["vram_recovered", "foreign_process", "throttle", "gpu_lost"]),
  seq: z.int().nonnegative(),
  ts: z.iso.datetime(),
  monotonic_ms: z.number(),
  gpu_uuid: z.string(),
  detail: z.record(z.string(), z.unknown()),
});
export type MonitorEvent = z.output<typeof eventSchema>;

/** What a source reads; {@link Sample} adds identity and time. */
export interface Reading {
  readonly gpus: readonly Gpu[];
  readonly driver: string | null;
  readonly notes: readonly string[];
}
