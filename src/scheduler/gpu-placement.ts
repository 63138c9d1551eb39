import { isUnplaced } from "./classes.ts";
import { RAM, type Candidate, type Context, type Verdict } from "./context.ts";
import { gpuUseOf } from "./demand.ts";
import { pendingReleaseMb, planEviction, releasing, reloadMs, startEviction } from "./eviction.ts";
import type { EvictionPlan } from "./eviction.ts";
import {
  availableRam,
  costOf,
  firstWith,
  fits,
  gpuOf,
  isIdleResident,
  refreshInstance,
} from "./ledger.ts";
import { sumOver } from "./ledger.ts";
import { claim, expectedIdle, expectedStart, keptFromHolder, mayPass } from "./reservation.ts";
import { UNKNOWN_GPU, type Gpu, type Hold, type Instance, type SchedulerState } from "./state.ts";

/** How many GPUs are compared to find the one that can be free soonest. */
const LOOK_AT = 32;

/** Finds the GPU for a job that needs one, or says what it waits for. */
export function placeOnGpu(context: Context, candidate: Candidate): Verdict {
  const { state } = context;
  const { instance, demand } = candidate;
  if (state.config.admission === "permissive") return placeUnchecked(context, candidate);
  const largestMb = state.host.largestGpuMb;
  if (state.host.gpusLive && demand.vramMb > largestMb) {
    return {
      kind: "reject",
      resource: "gpu_vram_mb",
      neededMb: demand.vramMb,
      availableMb: largestMb,
    };
  }
  if (state.gpuOrder.length === 0) return aloneOn(context, candidate, gpuOf(state, UNKNOWN_GPU));
  if (isUnplaced(instance)) return placeAnywhere(context, candidate);
  const gpu = instance.gpu === null ? undefined : state.gpus.get(instance.gpu);
  const isTooSmall = gpu !== undefined && demand.vramMb > gpu.totalMb - gpu.marginMb;
  if (gpu?.present !== true || isTooSmall) return moveOrWait(context, candidate);
  return demand.alone === "gpu"
    ? aloneOn(context, candidate, gpu)
    : besideOthersOn(context, candidate, gpu);
}

function placeUnchecked({ state }: Context, { instance }: Candidate): Verdict {
  const roomiest = state.gpuOrder.at(-1)?.uuid ?? null;
  const gpu = isUnplaced(instance) ? roomiest : instance.gpu;
  return { kind: "admit", gpu, usesGpu: gpu !== null, exclusive: false };
}

/** Its instance is loaded here, so this is its only candidate. */
function besideOthersOn(context: Context, candidate: Candidate, gpu: Gpu): Verdict {
  const { state } = context;
  const { instance, demand } = candidate;
  if (gpu.exclusiveJob !== null) return behindExclusive(context, candidate, gpu);
  const { vramMb: costMb, isVramHeld } = costOf(state, instance, demand);
  // What it holds already it may use, also when another program has come to fill the margin.
  if (isVramHeld || fits(state, gpu, costMb)) {
    if (passes(context, candidate, gpu, costMb)) return admitTo(gpu, false);
    return behindHolder(context, gpu.uuid);
  }
  const hold = expectedStart(context, candidate, gpu, costMb);
  const plan = evictionFor(context, candidate, gpu, costMb);
  if (isMoveCheaper(context, candidate, hold, plan)) return moveOrWait(context, candidate);
  const holds = hold !== null && claimGpu(context, candidate, gpu, hold);
  if (holds && plan !== null) startEviction(context, plan, idOf(candidate), "vram");
  return waitingFor(context, candidate, gpu, costMb);
}

/** No process yet: any GPU will do, the fullest that fits first. */
function placeAnywhere(context: Context, candidate: Candidate): Verdict {
  const { state } = context;
  const { instance, demand } = candidate;
  if (demand.alone === "gpu") return aloneAnywhere(context, candidate);
  const costMb = costOf(state, instance, demand).vramMb;
  const joint = state.rules.memoryTest === "joint";
  let heldBy: string | null = null;
  for (let i = joint ? firstWith(state, costMb) : 0; i < state.gpuOrder.length; i++) {
    const gpu = state.gpuOrder[i];
    if (gpu === undefined || gpu.exclusiveJob !== null || !fits(state, gpu, costMb)) continue;
    if (passes(context, candidate, gpu, costMb)) return admitTo(gpu, false);
    heldBy ??= gpu.uuid;
  }
  const evicting = evictAnywhere(context, candidate, costMb);
  if (evicting !== null) return evicting;
  if (heldBy !== null) return behindHolder(context, heldBy);
  return waitAnywhere(context, candidate, costMb);
}

/** Asks for the cheapest eviction on any GPU where one is enough; keeps to the GPU it asked before. */
function evictAnywhere(context: Context, candidate: Candidate, costMb: number): Verdict | null {
  const { state, heldBefore } = context;
  const before = heldBefore.get(idOf(candidate));
  const kept = before === undefined ? null : releaseOn(context, candidate, before, costMb);
  const options = [...state.evictableGpus].map((uuid) =>
    releaseOn(context, candidate, uuid, costMb),
  );
  const chosen =
    kept ?? options.filter((option) => option !== null).sort((a, b) => a.price - b.price)[0];
  if (chosen === undefined) return null;
  const { gpu, plan } = chosen;
  const hold = expectedStart(context, candidate, gpu, costMb);
  if (hold === null || !claimGpu(context, candidate, gpu, hold)) return null;
  if (plan !== null) startEviction(context, plan, idOf(candidate), "vram");
  return waitingFor(context, candidate, gpu, costMb);
}

interface Release {
  readonly gpu: Gpu;
  /** Null when the releases under way are enough. */
  readonly plan: EvictionPlan | null;
  readonly price: number;
}

/** How a GPU could make room by releases alone; null when it cannot. */
function releaseOn(
  context: Context,
  candidate: Candidate,
  uuid: string,
  costMb: number,
): Release | null {
  const gpu = context.state.gpus.get(uuid);
  if (gpu === undefined || !isOpen(context, candidate, gpu)) return null;
  const comingMb = pendingReleaseMb(context.state, gpu);
  if (comingMb > 0 && gpu.availableMb + comingMb >= costMb) return { gpu, plan: null, price: 0 };
  const plan = evictionFor(context, candidate, gpu, costMb);
  return plan === null ? null : { gpu, plan, price: plan.price };
}

/** The first job that waits for any GPU holds the one that can be free soonest. */
function waitAnywhere(context: Context, candidate: Candidate, costMb: number): Verdict {
  const { state } = context;
  const soonest = context.anywhereHeld
    ? null
    : soonestGpu(context, candidate, state.gpuOrder, (gpu) =>
        expectedStart(context, candidate, gpu, costMb),
      );
  if (soonest !== null) {
    context.anywhereHeld = true;
    if (soonest.gpu.exclusiveJob !== null) return behindExclusive(context, candidate, soonest.gpu);
    claimGpu(context, candidate, soonest.gpu, soonest.hold);
    return waitingFor(context, candidate, soonest.gpu, costMb);
  }
  return waitingFor(context, candidate, null, costMb);
}

/**
 * The GPU that can be free soonest; with many, among the ones with most room now. A job keeps the
 * one it held before: changing would throw away what has drained already.
 */
function soonestGpu(
  context: Context,
  candidate: Candidate,
  gpus: readonly Gpu[],
  start: (gpu: Gpu) => Omit<Hold, "jobId"> | null,
): { gpu: Gpu; hold: Omit<Hold, "jobId"> } | null {
  const before = context.heldBefore.get(idOf(candidate));
  const roomiest = gpus.slice(-LOOK_AT);
  const kept = before === undefined ? undefined : context.state.gpus.get(before);
  if (kept !== undefined) roomiest.push(kept);
  let best: { gpu: Gpu; hold: Omit<Hold, "jobId"> } | null = null;
  for (const gpu of roomiest.toReversed()) {
    if (!gpu.present || isHeldByOther(context, candidate, gpu)) continue;
    const hold = start(gpu);
    if (hold === null) continue;
    if (gpu === kept) return { gpu, hold };
    if (best === null || hold.at < best.hold.at) best = { gpu, hold };
  }
  return best;
}

/** A run that is its own measurement: nothing of ours runs there, idle residents leave first. */
function aloneOn(context: Context, candidate: Candidate, gpu: Gpu): Verdict {
  if (gpu.exclusiveJob !== null) return behindExclusive(context, candidate, gpu);
  const where = gpu.uuid;
  if (gpu.running.size > 0) {
    claimGpu(context, candidate, gpu, expectedIdle(context, gpu.running));
    const reason = { kind: "alone" as const, scope: "gpu" as const, where, behindJobId: null };
    return { kind: "block", reason };
  }
  if (!mayPass(context, where, candidate, Infinity)) return behindHolder(context, where);
  const awake = awakeResidents(context, candidate, gpu);
  if (awake.length === 0) return admitTo(gpu, true);
  claimGpu(context, candidate, gpu, expectedIdle(context, []));
  const idle = awake.filter((instance) => isIdleResident(instance));
  const plan = { instances: idle, price: 0, freedMb: 0 };
  startEviction(context, plan, idOf(candidate), "vram");
  const instanceIds = awake.map(({ id }) => id);
  return { kind: "block", reason: { kind: "eviction", gpuUuid: where, instanceIds } };
}

function aloneAnywhere(context: Context, candidate: Candidate): Verdict {
  const { state } = context;
  const { lowerBoundMb } = candidate.demand;
  const large = state.gpuOrder.filter((gpu) => gpu.totalMb > lowerBoundMb);
  const open = (large.length > 0 ? large : state.gpuOrder).filter((gpu) =>
    isOpen(context, candidate, gpu),
  );
  const idle = open.filter((gpu) => gpu.running.size === 0);
  const before = context.heldBefore.get(idOf(candidate));
  const gpu =
    idle.find(({ uuid }) => uuid === before) ??
    idle.findLast((each) => awakeResidents(context, candidate, each).length === 0) ??
    idle.at(-1) ??
    soonestGpu(context, candidate, open, (each) => expectedIdle(context, each.running))?.gpu;
  if (gpu === undefined) {
    const reason = {
      kind: "alone" as const,
      scope: "gpu" as const,
      where: "any",
      behindJobId: null,
    };
    return { kind: "block", reason };
  }
  return aloneOn(context, candidate, gpu);
}

/** A worker cannot change its GPU: it is ended when idle, and the job then goes where there is room. */
function moveOrWait(context: Context, candidate: Candidate): Verdict {
  const { instance } = candidate;
  if (!isIdleResident(instance)) {
    const { id, running, maxConcurrent } = instance;
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
  instance.state = "releasing";
  context.decisions.push({ type: "respawn", instanceId: instance.id, reason: "moved" });
  refreshInstance(context.state, instance);
  const reason = { kind: "eviction" as const, gpuUuid: instance.gpu, instanceIds: [instance.id] };
  return { kind: "block", reason, parked: true };
}

/** Moving costs one load; it pays when waiting, or what would have to be evicted here, costs more. */
function isMoveCheaper(
  context: Context,
  candidate: Candidate,
  hold: Omit<Hold, "jobId"> | null,
  plan: EvictionPlan | null,
): boolean {
  const { state, now } = context;
  const { instance, demand } = candidate;
  if (!isIdleResident(instance)) return false;
  const priceMs = reloadMs(instance);
  if (plan !== null && plan.price <= priceMs) return false;
  if (hold !== null && hold.at - now <= priceMs && plan === null) return false;
  if (instance.gpu !== null && releasing(state, gpuOf(state, instance.gpu).instances).length > 0) {
    return false;
  }
  return state.gpuOrder.some(
    (gpu) =>
      gpu.uuid !== instance.gpu &&
      isOpen(context, candidate, gpu) &&
      fits(state, gpu, demand.vramMb),
  );
}

function evictionFor(
  context: Context,
  candidate: Candidate,
  gpu: Gpu,
  costMb: number,
): EvictionPlan | null {
  const shortfallMb = costMb - gpu.availableMb - pendingReleaseMb(context.state, gpu);
  if (shortfallMb <= 0 || isHeldByOther(context, candidate, gpu)) return null;
  const want = { memory: "vram" as const, shortfallMb };
  return planEviction(context, gpu.instances, candidate.instance, want);
}

/** Residents that hold memory, or may hold it unseen, and are not the candidate's own. */
function awakeResidents({ state }: Context, { instance }: Candidate, gpu: Gpu): Instance[] {
  return [...gpu.instances]
    .map((id) => state.instances.get(id))
    .filter((each) => each !== undefined)
    .filter((each) => each !== instance && (!each.asleep || each.eviction !== null))
    .filter(
      ({ vram, capability, eviction }) =>
        vram.measuredMb > 0 || eviction !== null || gpuUseOf(state, capability) === "yes",
    );
}

function passes(context: Context, candidate: Candidate, gpu: Gpu, costMb: number): boolean {
  const keptMb = keptFromHolder(context, gpu.uuid, candidate.instance, costMb);
  return mayPass(context, gpu.uuid, candidate, keptMb);
}

/** Holds a GPU and sets aside the RAM that the job will need when the GPU is free. */
export function claimGpu(
  context: Context,
  candidate: Candidate,
  gpu: Gpu,
  hold: Omit<Hold, "jobId">,
): boolean {
  const { state, now } = context;
  if (!claim(context, gpu.uuid, idOf(candidate), hold)) return false;
  const availableMb = availableRam(state);
  const { ramMb } = costOf(state, candidate.instance, candidate.demand);
  if (availableMb !== null && ramMb > 0) {
    claim(context, RAM, idOf(candidate), {
      at: now,
      extraMb: availableMb - ramMb,
      aside: true,
    });
  }
  return true;
}

function waitingFor(
  { state }: Context,
  { demand }: Candidate,
  gpu: Gpu | null,
  costMb: number,
): Verdict {
  const instanceIds = gpu === null ? [] : releasing(state, gpu.instances);
  if (gpu !== null && instanceIds.length > 0) {
    return { kind: "block", reason: { kind: "eviction", gpuUuid: gpu.uuid, instanceIds } };
  }
  const place = gpu ?? state.gpuOrder.at(-1);
  const availableMb = Math.max(0, place?.availableMb ?? 0);
  const outsideMb = place === undefined ? 0 : heldOutsideMb(state, place, demand.vramMb);
  const gpuUuid = gpu?.uuid ?? null;
  return {
    kind: "block",
    reason: { kind: "vram", gpuUuid, neededMb: costMb, availableMb, outsideMb },
  };
}

/** What programs that are not ours hold of a GPU, when the job would not fit beside them. */
function heldOutsideMb(state: SchedulerState, gpu: Gpu, neededMb: number): number {
  const oursMb = gpu.leavingMb + sumOver(state, gpu, ({ vram }) => vram.reservedMb);
  const reachableMb = gpu.availableMb + oursMb;
  if (neededMb <= reachableMb) return 0;
  return Math.max(0, gpu.totalMb - gpu.marginMb - reachableMb);
}

function behindExclusive(context: Context, candidate: Candidate, gpu: Gpu): Verdict {
  const running = gpu.exclusiveJob === null ? [] : [gpu.exclusiveJob];
  claimGpu(context, candidate, gpu, expectedIdle(context, running));
  return {
    kind: "block",
    reason: { kind: "alone", scope: "gpu", where: gpu.uuid, behindJobId: gpu.exclusiveJob },
  };
}

function behindHolder({ state }: Context, place: string): Verdict {
  const behindJobId = state.holds.get(place)?.jobId ?? "";
  return { kind: "block", reason: { kind: "reservation", where: place, behindJobId } };
}

function isOpen(context: Context, candidate: Candidate, gpu: Gpu): boolean {
  return gpu.present && gpu.exclusiveJob === null && !isHeldByOther(context, candidate, gpu);
}

function isHeldByOther({ state }: Context, candidate: Candidate, gpu: Gpu): boolean {
  const hold = state.holds.get(gpu.uuid);
  return hold !== undefined && hold.jobId !== idOf(candidate);
}

function admitTo(gpu: Gpu, exclusive: boolean): Verdict {
  return { kind: "admit", gpu: gpu.uuid, usesGpu: true, exclusive };
}

function idOf({ job }: Candidate): string {
  return job.request.jobId;
}
