import type { BlockReason } from "./block-reason.ts";
import { classHead, isBefore } from "./classes.ts";
import { UNKNOWN_GPU, type Instance, type SchedulerState } from "./state.ts";

export interface PendingStatus {
  readonly jobId: string;
  readonly instanceId: string;
  readonly priority: number;
  /** Null only before the first step that could look at it. */
  readonly reason: BlockReason | null;
  /** How often a later job has started ahead while this one held a reservation. */
  readonly passes: number;
}

/** Amounts are MB. */
export interface GpuStatus {
  readonly uuid: string;
  readonly totalMb: number;
  readonly freeMb: number;
  /** What our instances are counted with: at least what they hold. */
  readonly reservedMb: number;
  /** What may still be promised, the margin already taken off; negative when overdrawn. */
  readonly availableMb: number;
  readonly instances: readonly GpuInstanceStatus[];
  /** The job that runs alone there. */
  readonly exclusiveJobId: string | null;
  /** The job that the GPU is reserved for next. */
  readonly heldByJobId: string | null;
}

export interface GpuInstanceStatus {
  readonly instanceId: string;
  readonly observedMb: number;
  readonly reservedMb: number;
  readonly runningJobIds: readonly string[];
  /** `idle` and `asleep` are residents: they hold memory and run nothing. */
  readonly use: "running" | "idle" | "asleep" | "releasing" | "loading";
}

/** Why a pending job waits; null for a job that is not pending or was not looked at yet. O(log n). */
export function blockReasonOf(state: SchedulerState, jobId: string): BlockReason | null {
  const job = state.pending.get(jobId);
  if (job === undefined) return null;
  const classId = state.lines.get(job.lineId)?.classId ?? "";
  const jobClass = state.classes.get(classId);
  const head = jobClass === undefined ? undefined : classHead(state, jobClass);
  if (head === undefined || head === job) return job.reason;
  return { kind: "behind", behindJobId: head.request.jobId };
}

/** Pending jobs in the order in which they are considered. O(n log n). */
export function pendingInOrder(state: SchedulerState): PendingStatus[] {
  return [...state.pending.values()]
    .sort((a, b) => (isBefore(a.request, b.request) ? -1 : 1))
    .map(({ request, passes }) => ({
      jobId: request.jobId,
      instanceId: request.instanceId,
      priority: request.priority,
      reason: blockReasonOf(state, request.jobId),
      passes,
    }));
}

/** The GPUs of the last telemetry event that had any. */
export function gpuStatus(state: SchedulerState): GpuStatus[] {
  return [...state.gpus.values()]
    .filter(({ present, uuid }) => present && uuid !== UNKNOWN_GPU)
    .map((gpu) => {
      const instances = [...gpu.instances]
        .map((id) => state.instances.get(id))
        .filter((instance) => instance !== undefined)
        .map(instanceStatus);
      return {
        uuid: gpu.uuid,
        totalMb: gpu.totalMb,
        freeMb: gpu.freeMb,
        reservedMb: instances.reduce((sum, { reservedMb }) => sum + reservedMb, 0),
        availableMb: gpu.availableMb,
        instances,
        exclusiveJobId: gpu.exclusiveJob,
        heldByJobId: state.holds.get(gpu.uuid)?.jobId ?? null,
      };
    });
}

export function lanesInUse(state: SchedulerState): number {
  return state.running.size;
}

/**
 * The GPU to start an instance on that is loaded before any job asks for it: the one with most to
 * spare. Null when no GPU is known. A wrong guess is corrected by a later `respawn`.
 */
export function placeForLoad(state: SchedulerState): string | null {
  return state.gpuOrder.at(-1)?.uuid ?? null;
}

function instanceStatus(instance: Instance): GpuInstanceStatus {
  return {
    instanceId: instance.id,
    observedMb: instance.vram.sampledMb,
    reservedMb: instance.vram.reservedMb,
    runningJobIds: [...instance.running],
    use: useOf(instance),
  };
}

function useOf(instance: Instance): GpuInstanceStatus["use"] {
  if (instance.eviction !== null || instance.state === "releasing") return "releasing";
  if (instance.running.size > 0) return "running";
  if (instance.state === "loading") return "loading";
  return instance.asleep ? "asleep" : "idle";
}
