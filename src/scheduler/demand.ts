import { borrowPeak, isMeasured, p95Of, parseProfileKey } from "./profile.ts";
import type { ResourceProfile } from "./profile.ts";
import type { JobClass, SchedulerState } from "./state.ts";
import type { JobRequest } from "./types.ts";

/** What the ladder takes a job to need. Amounts are MB. */
export interface Demand {
  readonly vramMb: number;
  readonly ramMb: number;
  readonly usesGpu: boolean;
  /** It must be alone: on its GPU, or in its instance. */
  readonly alone: "gpu" | "instance" | null;
  readonly borrowedFrom: string | null;
  /** A GPU smaller than this has already been too small. */
  readonly lowerBoundMb: number;
  readonly durationMs: number | null;
  readonly loadMs: number | null;
}

const UNMEASURED: Demand = {
  vramMb: 0,
  ramMb: 0,
  usesGpu: false,
  alone: "instance",
  borrowedFrom: null,
  lowerBoundMb: 0,
  durationMs: null,
  loadMs: null,
};

/** The demand of all members of a class, computed once per change of what is known. */
export function demandOfClass(
  state: SchedulerState,
  jobClass: JobClass,
  request: JobRequest,
): Demand {
  const { knowledge } = state.host;
  if (jobClass.demand === null || jobClass.knowledge !== knowledge) {
    jobClass.demand = demandOf(state, request);
    jobClass.knowledge = knowledge;
  }
  return jobClass.demand;
}

export function demandOf(state: SchedulerState, request: JobRequest): Demand {
  const { admission, empiricalTracking } = state.config;
  const profile = empiricalTracking ? state.profiles.get(request.profileKey) : undefined;
  if (admission === "permissive") return uncheckedDemand(state, request, profile);
  if (profile !== undefined && isMeasured(profile) && hasVramWhereNeeded(state, profile)) {
    return measuredDemand(state, profile);
  }
  return unmeasuredDemand(state, request, profile);
}

/** Whether any run of a capability was seen to use a GPU; `unknown` before the first measured run. */
export function gpuUseOf(state: SchedulerState, capability: string): "yes" | "no" | "unknown" {
  if (!state.config.empiricalTracking) return "unknown";
  let use: "no" | "unknown" = "unknown";
  for (const profile of profilesOf(state, capability)) {
    if (profile.vramPeakMb.max > 0 || profile.vramLowerBoundMb > 0) return "yes";
    if (isMeasured(profile) && hasVramWhereNeeded(state, profile)) use = "no";
  }
  return use;
}

/** A profile made without a monitor says nothing about VRAM on a machine that has one. */
function hasVramWhereNeeded(state: SchedulerState, profile: ResourceProfile): boolean {
  return profile.vramPeakMb.count > 0 || !state.host.gpusLive;
}

function measuredDemand(state: SchedulerState, profile: ResourceProfile): Demand {
  const peakMb = profile.vramPeakMb.max;
  const vramMb = Math.max(peakMb, profile.vramLowerBoundMb);
  const usesGpu = vramMb > 0;
  const { gpusLive, largestGpuMb } = state.host;
  // A lower bound alone must never make a key impossible: it gets a whole GPU to prove itself.
  const boundedOut = profile.vramLowerBoundMb > peakMb && vramMb > largestGpuMb;
  const alone = usesGpu && (!gpusLive || boundedOut);
  return {
    vramMb: alone ? Math.min(vramMb, largestGpuMb) : vramMb,
    ramMb: profile.ramPeakMb.max,
    usesGpu,
    alone: alone ? "gpu" : null,
    borrowedFrom: null,
    lowerBoundMb: profile.vramLowerBoundMb,
    durationMs: p95Of(profile.durationMs),
    loadMs: p95Of(profile.loadMs),
  };
}

function unmeasuredDemand(
  state: SchedulerState,
  request: JobRequest,
  profile: ResourceProfile | undefined,
): Demand {
  const { gpusLive } = state.host;
  if (request.vramLimitMb !== undefined && gpusLive) {
    return { ...UNMEASURED, vramMb: request.vramLimitMb, usesGpu: true, alone: null };
  }
  const borrowed = gpusLive ? borrow(state, request) : null;
  if (borrowed !== null) return borrowed;
  const use = gpuUseOf(state, request.capability);
  const usesGpu = use === "yes" || (use === "unknown" && hasGpu(state));
  if (!usesGpu) return UNMEASURED;
  const lowerBoundMb = profile?.vramLowerBoundMb ?? 0;
  return { ...UNMEASURED, usesGpu, alone: "gpu", lowerBoundMb };
}

function borrow(state: SchedulerState, request: JobRequest): Demand | null {
  if (!state.config.empiricalTracking) return null;
  const parts = parseProfileKey(request.profileKey);
  const peak = parts === null ? null : borrowPeak(parts, profilesOf(state, request.capability));
  if (peak === null) return null;
  const { vramMb, ramMb, fromKey } = peak;
  // A borrowed peak that is too large is a guess, and a guess must not fail a job.
  if (vramMb > state.host.largestGpuMb) return null;
  const lender = state.profiles.get(fromKey);
  const usesGpu = vramMb > 0;
  return {
    ...UNMEASURED,
    vramMb,
    ramMb,
    usesGpu,
    alone: null,
    borrowedFrom: fromKey,
    loadMs: lender === undefined ? null : p95Of(lender.loadMs),
  };
}

function uncheckedDemand(
  state: SchedulerState,
  request: JobRequest,
  profile: ResourceProfile | undefined,
): Demand {
  const usesGpu = hasGpu(state) && gpuUseOf(state, request.capability) !== "no";
  const loadMs = profile === undefined ? null : p95Of(profile.loadMs);
  return { ...UNMEASURED, usesGpu, alone: null, loadMs };
}

function* profilesOf(state: SchedulerState, capability: string): Iterable<ResourceProfile> {
  for (const key of state.keysOf.get(capability) ?? []) {
    const profile = state.profiles.get(key);
    if (profile !== undefined) yield profile;
  }
}

function hasGpu(state: SchedulerState): boolean {
  return state.gpuOrder.length > 0;
}
