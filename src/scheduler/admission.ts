import { RAM, type Candidate, type Context, type Verdict } from "./context.ts";
import { planEviction, releasing, startEviction } from "./eviction.ts";
import { availableRam, costOf } from "./ledger.ts";
import { claim, expectedIdle, expectedStart, mayPass } from "./reservation.ts";
import { claimGpu, placeOnGpu } from "./gpu-placement.ts";
import type { BlockReason } from "./block-reason.ts";
import type { SchedulerState } from "./state.ts";

/** The ladder for one class head; lanes were tested before. May ask for evictions, else only looks. */
export function examine(context: Context, candidate: Candidate): Verdict {
  const { state } = context;
  const own = ownInstanceBlock(context, candidate);
  if (own !== null) return own;
  if (state.config.admission === "permissive") {
    return candidate.demand.usesGpu ? placeOnGpu(context, candidate) : admitOffGpu(candidate);
  }
  const early =
    diskBlock(state) ?? ramNeverFits(context, candidate) ?? aloneInInstance(context, candidate);
  if (early !== null) return early;
  const ram = ramBlock(context, candidate);
  if (ram !== null) return ram;
  return candidate.demand.usesGpu ? placeOnGpu(context, candidate) : admitOffGpu(candidate);
}

/** Nothing starts below the limit of free disk. */
export function diskReason(state: SchedulerState): Extract<BlockReason, { kind: "disk" }> | null {
  const { diskFreeMb } = state.host;
  const { minFreeDiskMb } = state.config;
  if (diskFreeMb === null || diskFreeMb >= minFreeDiskMb) return null;
  return { kind: "disk", neededMb: minFreeDiskMb, availableMb: diskFreeMb };
}

function ownInstanceBlock(context: Context, candidate: Candidate): Verdict | null {
  const { instance } = candidate;
  const { id, running, maxConcurrent, exclusiveJob } = instance;
  if (instance.eviction !== null || instance.state === "releasing" || instance.tainted) {
    const reason: BlockReason = { kind: "eviction", gpuUuid: instance.gpu, instanceIds: [id] };
    return { kind: "block", reason, parked: true };
  }
  if (exclusiveJob !== null) {
    return {
      kind: "block",
      reason: { kind: "alone", scope: "instance", where: id, behindJobId: exclusiveJob },
      parked: true,
    };
  }
  if (running.size >= maxConcurrent) {
    return {
      kind: "block",
      reason: {
        kind: "instance_busy",
        instanceId: id,
        running: running.size,
        limit: maxConcurrent,
      },
      parked: true,
    };
  }
  return heldBlock(context, candidate, id, Infinity);
}

/** Blocked when an earlier job holds the place and this one may not pass it. */
function heldBlock(
  context: Context,
  candidate: Candidate,
  place: string,
  keptMb: number,
): Verdict | null {
  if (mayPass(context, place, candidate, keptMb)) return null;
  const behindJobId = context.state.holds.get(place)?.jobId ?? "";
  return { kind: "block", reason: { kind: "reservation", where: place, behindJobId } };
}

function diskBlock(state: SchedulerState): Verdict | null {
  const reason = diskReason(state);
  return reason === null ? null : { kind: "block", reason };
}

function ramNeverFits({ state }: Context, { demand }: Candidate): Verdict | null {
  const { ramTotalMb } = state.host;
  if (ramTotalMb === null) return null;
  const availableMb = ramTotalMb - state.config.ramMarginMb;
  if (demand.ramMb <= availableMb) return null;
  return { kind: "reject", resource: "system_ram_mb", neededMb: demand.ramMb, availableMb };
}

/** A run that measures is alone in its instance, also where it must be alone on its GPU as well. */
function aloneInInstance(context: Context, candidate: Candidate): Verdict | null {
  const { instance, demand, job } = candidate;
  if (demand.alone === null || instance.running.size === 0) return null;
  const gpu = context.state.gpus.get(instance.gpu ?? "");
  if (demand.alone === "gpu" && gpu !== undefined) {
    claimGpu(context, candidate, gpu, expectedIdle(context, gpu.running));
  }
  claim(context, instance.id, job.request.jobId, expectedIdle(context, instance.running));
  const reason: BlockReason = {
    kind: "alone",
    scope: "instance",
    where: instance.id,
    behindJobId: null,
  };
  return { kind: "block", reason };
}

function ramBlock(context: Context, candidate: Candidate): Verdict | null {
  const { state } = context;
  const { instance, demand, job } = candidate;
  const availableMb = availableRam(state);
  const { ramMb, isRamHeld } = costOf(state, instance, demand);
  if (availableMb === null || isRamHeld) return null;
  if (ramMb <= availableMb) return heldBlock(context, candidate, RAM, ramMb);
  const hold = expectedStart(context, candidate, RAM, ramMb);
  if (hold !== null && claim(context, RAM, job.request.jobId, hold)) {
    evictForRam(context, candidate, ramMb - availableMb);
    const instanceIds = releasing(state, state.present);
    if (instanceIds.length > 0) {
      return { kind: "block", reason: { kind: "eviction", gpuUuid: null, instanceIds } };
    }
  }
  return { kind: "block", reason: { kind: "ram", neededMb: ramMb, availableMb } };
}

function evictForRam(context: Context, candidate: Candidate, shortfallMb: number): void {
  const { state } = context;
  let comingMb = 0;
  for (const id of state.present) {
    const instance = state.instances.get(id);
    if (instance?.eviction?.memory === "ram") comingMb += instance.ram.sampledMb;
  }
  if (comingMb >= shortfallMb) return;
  const want = { memory: "ram" as const, shortfallMb: shortfallMb - comingMb };
  const plan = planEviction(context, state.present, candidate.instance, want);
  if (plan !== null) startEviction(context, plan, candidate.job.request.jobId, "ram");
}

function admitOffGpu({ instance, demand }: Candidate): Verdict {
  return { kind: "admit", gpu: instance.gpu, usesGpu: false, exclusive: demand.alone !== null };
}
