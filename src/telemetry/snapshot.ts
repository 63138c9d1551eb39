import type { Attribution, GpuAttribution } from "./attribution.ts";
import type { GpuSample, GpuState } from "./gpu-sample.ts";
import type { InstanceTracker } from "./instance-tracker.ts";

const MIB = 1024 * 1024;

/** One GPU as admission sees it. Megabytes are MiB; null is unknown. */
export interface GpuSnapshot {
  readonly uuid: string;
  readonly index: number;
  readonly name: string | null;
  readonly totalMb: number | null;
  readonly usedMb: number | null;
  readonly freeMb: number | null;
  /** In use by nobody of ours: other programs and the driver. */
  readonly foreignMb: number | null;
  readonly utilizationPercent: number | null;
  readonly lost: boolean;
  /** What each instance holds; an instance that holds nothing is absent. */
  readonly instances: Readonly<Record<string, InstanceGpuUse>>;
}

export interface InstanceGpuUse {
  readonly mb: number;
  readonly method: Attribution["method"];
  readonly confidence: number;
}

export interface InstanceSnapshot {
  readonly instanceId: string;
  readonly pid: number;
  readonly processes: number;
  readonly hostMb: number | null;
  readonly hostMethod: "rss" | "pss";
  /** 100 is one core. */
  readonly cpuPercent: number | null;
  /** Since the instance is followed; the VRAM one is that of its fullest GPU. */
  readonly hostPeakMb: number;
  readonly gpuPeakMb: number;
  readonly jobs: readonly string[];
}

export interface TelemetrySnapshot {
  /** Monotonic milliseconds of this host. */
  readonly atMs: number;
  /** False: no monitor or a silent one, so the GPU numbers are old or absent. */
  readonly isLive: boolean;
  /** Name of the monitor's source; null before its first sample. */
  readonly source: string | null;
  /** Age of the GPU numbers. */
  readonly ageMs: number | null;
  readonly gpus: readonly GpuSnapshot[];
  readonly instances: readonly InstanceSnapshot[];
  readonly ram: { readonly totalMb: number; readonly availableMb: number };
}

export interface SnapshotParts {
  readonly nowMs: number;
  readonly isLive: boolean;
  readonly sample: { readonly value: GpuSample; readonly atMs: number } | undefined;
  readonly gpus: readonly { readonly state: GpuState; readonly attribution: GpuAttribution }[];
  readonly instances: readonly InstanceTracker[];
  readonly ram: { readonly totalBytes: number; readonly availableBytes: number };
}

export function snapshotOf(parts: SnapshotParts): TelemetrySnapshot {
  const { sample } = parts;
  return {
    atMs: parts.nowMs,
    isLive: parts.isLive,
    source: sample?.value.source ?? null,
    ageMs: sample === undefined ? null : parts.nowMs - sample.atMs,
    gpus: parts.gpus.map(({ state, attribution }) => gpuSnapshot(state, attribution)),
    instances: parts.instances.map((instance) => ({
      instanceId: instance.instanceId,
      pid: instance.rootPid,
      processes: instance.use?.processes ?? 0,
      hostMb: toMb(instance.use?.bytes),
      hostMethod: instance.use?.method ?? "rss",
      cpuPercent: instance.use?.cpuPercent ?? null,
      hostPeakMb: instance.hostPeakBytes / MIB,
      gpuPeakMb: Math.max(0, ...instance.gpuPeakBytes.values()) / MIB,
      jobs: [...instance.jobs],
    })),
    ram: {
      totalMb: parts.ram.totalBytes / MIB,
      availableMb: parts.ram.availableBytes / MIB,
    },
  };
}

function gpuSnapshot(state: GpuState, attribution: GpuAttribution): GpuSnapshot {
  const usedMb = toMb(state.memory_used_bytes);
  const instances: Record<string, InstanceGpuUse> = {};
  let oursMb = 0;
  for (const [instanceId, { bytes, method, confidence }] of attribution.instances) {
    instances[instanceId] = { mb: bytes / MIB, method, confidence };
    oursMb += bytes / MIB;
  }
  return {
    uuid: state.uuid,
    index: state.index,
    name: state.name ?? null,
    totalMb: toMb(state.memory_total_bytes),
    usedMb,
    freeMb: toMb(state.memory_free_bytes),
    foreignMb: usedMb === null ? null : Math.max(0, usedMb - oursMb),
    utilizationPercent: state.utilization_percent ?? null,
    lost: state.lost,
    instances,
  };
}

function toMb(bytes: number | null | undefined): number | null {
  return typeof bytes === "number" ? bytes / MIB : null;
}
