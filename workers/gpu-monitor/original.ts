import { z } from "cjm-substrate/worker";
import type { Gpu, Sample } from "./model.ts";
import type { SystemReport } from "./system.ts";

const MIB = 1024 * 1024;
const VENDOR_NAMES = { nvidia: "NVIDIA", amd: "AMD", simulated: "Simulated" } as const;

export const processOutput = z.object({
  pid: z.int(),
  name: z.string().nullable(),
  gpu_index: z.int(),
  gpu_memory_mb: z.number().nullable(),
  gpu_uuid: z.string(),
  gpu_memory_bytes: z.int().nullable(),
  kind: z.string(),
  own: z.boolean().nullable(),
});

/** The original's flat keys, in megabytes, over all GPUs; null for what could not be read. */
export function originalStatus(
  sample: Sample,
  system: SystemReport,
): Readonly<Record<string, unknown>> {
  const vendors = new Set(sample.gpus.map((gpu) => VENDOR_NAMES[gpu.vendor]));
  const loads = sample.gpus.map((gpu) => gpu.utilization_percent).filter((load) => load !== null);
  return {
    cpu_percent: system.cpu.load_percent,
    memory_used_mb: toMb(system.ram.used_bytes),
    memory_total_mb: toMb(system.ram.total_bytes),
    memory_available_mb: toMb(system.ram.available_bytes),
    gpu_type: vendors.size === 0 ? "None" : [...vendors].join("+"),
    gpu_free_memory_mb: totalMb(sample.gpus, "memory_free_bytes"),
    gpu_total_memory_mb: totalMb(sample.gpus, "memory_total_bytes"),
    gpu_used_memory_mb: totalMb(sample.gpus, "memory_used_bytes"),
    gpu_load_percent: loads.length === 0 ? null : Math.max(...loads),
  };
}

/** One item per process and GPU, in the original's keys and beside them bytes and UUID. */
export function originalProcesses(sample: Sample): z.output<typeof processOutput>[] {
  return sample.gpus.flatMap((gpu) =>
    (gpu.processes ?? []).map((process) => ({
      pid: process.pid,
      name: process.name,
      gpu_index: gpu.index,
      gpu_memory_mb: toMb(process.memory_bytes),
      gpu_uuid: gpu.uuid,
      gpu_memory_bytes: process.memory_bytes,
      kind: process.kind,
      own: process.own,
    })),
  );
}

type MemoryField = "memory_free_bytes" | "memory_total_bytes" | "memory_used_bytes";

/** A sum with an unknown part is unknown. */
function totalMb(gpus: readonly Gpu[], field: MemoryField): number | null {
  let total = 0;
  for (const gpu of gpus) {
    const value = gpu[field];
    if (value === null) return null;
    total += value;
  }
  return gpus.length === 0 ? null : total / MIB;
}

function toMb(bytes: number | null): number | null {
  return bytes === null ? null : bytes / MIB;
}
