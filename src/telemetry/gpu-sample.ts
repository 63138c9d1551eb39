import { z } from "zod";

const bytes = z.number().nonnegative().nullish();
const MIB = 1024 * 1024;

const gpuProcessSchema = z.object({
  pid: z.int(),
  memory_bytes: bytes,
  name: z.string().nullish(),
});

const gpuStateSchema = z.object({
  uuid: z.string(),
  index: z.int().nonnegative(),
  name: z.string().nullish(),
  memory_total_bytes: bytes,
  memory_used_bytes: bytes,
  memory_free_bytes: bytes,
  utilization_percent: z.number().nullish(),
  temperature_celsius: z.number().nullish(),
  lost: z.boolean().default(false),
  /** Null: this source cannot tell who holds the memory. */
  processes: z.array(gpuProcessSchema).nullish(),
});
export type GpuState = z.output<typeof gpuStateSchema>;

const gpuSampleSchema = z.object({
  type: z.literal("sample"),
  source: z.string(),
  driver: z.string().nullish(),
  /** Namespace in which the pids are meant; absent means ours. */
  pid_namespace: z.string().nullish(),
  gpus: z.array(gpuStateSchema),
});
export type GpuSample = z.output<typeof gpuSampleSchema>;

const gpuEventSchema = z.object({
  type: z.literal("event"),
  event: z.string(),
  ts: z.string(),
  gpu_uuid: z.string(),
  detail: z.record(z.string(), z.unknown()).default({}),
});
export type GpuEvent = z.output<typeof gpuEventSchema>;

/** One chunk of a monitor's `watch`, as far as this host reads it; unknown members are ignored. */
export const watchChunkSchema = z.discriminatedUnion("type", [gpuSampleSchema, gpuEventSchema]);

const originalStatusSchema = z.object({
  gpu_type: z.string().nullish(),
  gpu_free_memory_mb: z.number().nullish(),
  gpu_total_memory_mb: z.number().nullish(),
  gpu_used_memory_mb: z.number().nullish(),
  gpu_load_percent: z.number().nullish(),
});
const originalProcessesSchema = z.array(
  z.object({
    pid: z.int(),
    gpu_index: z.int().nullish(),
    gpu_memory_mb: z.number().nullish(),
    name: z.string().nullish(),
  }),
);

/**
 * The answers of a monitor of the Python original as a sample.
 *
 * That one names no GPU and adds all of them up, so they become one device, `original:all`. A monitor
 * without per-process visibility answers an empty list although memory is in use: nobody is known
 * then, which is not the same as nobody.
 */
export function sampleFromOriginal(status: unknown, processes: unknown): GpuSample {
  const answer = originalStatusSchema.parse(status);
  const listed = originalProcessesSchema.parse(processes ?? []);
  const totalMb = answer.gpu_total_memory_mb ?? 0;
  const sample = { type: "sample", source: "original" } as const;
  if (totalMb <= 0) return { ...sample, gpus: [] };
  const usedMb = answer.gpu_used_memory_mb ?? usedFromFree(totalMb, answer.gpu_free_memory_mb);
  return {
    ...sample,
    gpus: [
      {
        uuid: "original:all",
        index: 0,
        name: answer.gpu_type ?? null,
        memory_total_bytes: totalMb * MIB,
        memory_used_bytes: usedMb === null ? null : usedMb * MIB,
        memory_free_bytes: usedMb === null ? null : (totalMb - usedMb) * MIB,
        utilization_percent: answer.gpu_load_percent ?? null,
        lost: false,
        processes: listed.length === 0 ? null : listed.map(fromOriginalProcess),
      },
    ],
  };
}

function usedFromFree(totalMb: number, freeMb: number | null | undefined): number | null {
  return typeof freeMb === "number" ? Math.max(0, totalMb - freeMb) : null;
}

function fromOriginalProcess({
  pid,
  gpu_memory_mb: memoryMb,
  name,
}: z.output<typeof originalProcessesSchema>[number]): z.output<typeof gpuProcessSchema> {
  const known = typeof memoryMb === "number";
  return { pid, name: name ?? null, memory_bytes: known ? memoryMb * MIB : null };
}
