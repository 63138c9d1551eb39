import type { Context } from "./context.ts";
import { isIdleResident, refreshInstance } from "./ledger.ts";
import { regroup } from "./classes.ts";
import type { Gpu, Instance, MemoryUse, SchedulerState } from "./state.ts";
import type { EvictionLevel } from "./types.ts";

/** Assumed for an instance whose load was never measured. */
export const DEFAULT_LOAD_MS = 10_000;
/** A resident that pending jobs want will be loaded again soon. */
const WANTED_FACTOR = 8;
const EXACT_LIMIT = 12;
const MINUTE_MS = 60_000;

export interface EvictionPlan {
  readonly instances: readonly Instance[];
  /** Loading time that the plan will cost, weighted. */
  readonly price: number;
  readonly freedMb: number;
}

type Memory = "vram" | "ram";

interface Option {
  readonly instance: Instance;
  readonly mb: number;
  readonly price: number;
}

/**
 * The cheapest set of idle residents whose release would free `shortfallMb`; null when there is none.
 *
 * Cheap: idle for long, quick to reload. Exact for up to 12 residents, greedy by price per MB above.
 */
export function planEviction(
  context: Context,
  residents: Iterable<string>,
  own: Instance,
  want: { readonly memory: Memory; readonly shortfallMb: number },
): EvictionPlan | null {
  const options: Option[] = [];
  for (const id of residents) {
    const instance = context.state.instances.get(id);
    if (instance === undefined || instance === own) continue;
    if (!mayEvict(context.state, instance)) continue;
    const mb = instance[want.memory].sampledMb;
    if (mb > 0) options.push({ instance, mb, price: priceOf(context, instance) });
  }
  const totalMb = options.reduce((sum, { mb }) => sum + mb, 0);
  if (totalMb < want.shortfallMb) return null;
  const chosen =
    options.length <= EXACT_LIMIT
      ? cheapestExact(options, want.shortfallMb)
      : cheapestGreedy(options, want.shortfallMb);
  return {
    instances: chosen.map(({ instance }) => instance),
    price: chosen.reduce((sum, { price }) => sum + price, 0),
    freedMb: chosen.reduce((sum, { mb }) => sum + mb, 0),
  };
}

/** Asks the instances of a plan to release memory. */
export function startEviction(
  context: Context,
  plan: EvictionPlan,
  forJobId: string,
  memory: Memory,
): void {
  for (const instance of plan.instances) {
    const level: EvictionLevel = memory === "ram" || instance.asleep ? "unload" : "sleep";
    const sampledMb = instance[memory].sampledMb;
    instance.eviction = {
      level,
      forJobId,
      memory,
      expectedMb: sampledMb,
      sampledBeforeMb: sampledMb,
      repliedAt: null,
      refuted: false,
    };
    context.decisions.push({ type: "evict", instanceId: instance.id, forJobId, level });
    refreshInstance(context.state, instance);
    regroup(context.state, instance);
  }
}

/** The worker has answered, or failed to. */
export function onEvictionReply(context: Context, instance: Instance, replied: boolean): void {
  const { eviction } = instance;
  if (eviction === null || eviction.repliedAt !== null || eviction.refuted) return;
  if (!replied) {
    refute(context, instance, 0);
    return;
  }
  eviction.repliedAt = context.now;
  if (!isMeasuredWhere(context.state, eviction.memory)) {
    confirm(context, instance);
    return;
  }
  const at = context.now + context.state.config.evictionTimeoutMs;
  context.decisions.push({ type: "wake", at });
}

/** Judges one release by what was measured: half of it must be seen free in time. */
export function judgeEviction(context: Context, instance: Instance, takenAt: number): void {
  const { eviction } = instance;
  if (eviction === null || eviction.repliedAt === null || eviction.refuted) return;
  const use: MemoryUse = instance[eviction.memory];
  const seenMb = eviction.sampledBeforeMb - use.sampledMb;
  if (takenAt >= eviction.repliedAt && seenMb >= eviction.expectedMb / 2) {
    confirm(context, instance);
    return;
  }
  if (context.now < eviction.repliedAt + context.state.config.evictionTimeoutMs) return;
  if (isMeasuredWhere(context.state, eviction.memory)) refute(context, instance, seenMb);
  else confirm(context, instance);
}

/** Memory that releases under way will give back on a GPU. */
export function pendingReleaseMb(state: SchedulerState, gpu: Gpu): number {
  let sum = 0;
  for (const id of gpu.instances) {
    const instance = state.instances.get(id);
    if (instance?.eviction?.memory === "vram") sum += instance.vram.sampledMb;
  }
  return sum;
}

/** Ids of the instances that are giving memory back. */
export function releasing(state: SchedulerState, ids: Iterable<string>): string[] {
  return [...ids].filter((id) => {
    const instance = state.instances.get(id);
    return instance !== undefined && instance.eviction !== null;
  });
}

export function reloadMs(instance: Instance): number {
  return instance.loadMs ?? DEFAULT_LOAD_MS;
}

function mayEvict(state: SchedulerState, instance: Instance): boolean {
  if (!isIdleResident(instance)) return false;
  return state.rules.wantedResidents === "dear" || instance.lines.size === 0;
}

function priceOf({ now }: Context, instance: Instance): number {
  const wanted = instance.lines.size > 0 ? WANTED_FACTOR : 1;
  const idleMinutes = Math.max(0, now - instance.idleSince) / MINUTE_MS;
  return (reloadMs(instance) * wanted) / (1 + idleMinutes);
}

function cheapestExact(options: readonly Option[], neededMb: number): Option[] {
  let best: Option[] = [];
  let bestPrice = Infinity;
  for (let mask = 0; mask < 1 << options.length; mask++) {
    const chosen = options.filter((_, i) => (mask & (1 << i)) !== 0);
    const mb = chosen.reduce((sum, option) => sum + option.mb, 0);
    const price = chosen.reduce((sum, option) => sum + option.price, 0);
    if (mb < neededMb || price >= bestPrice) continue;
    best = chosen;
    bestPrice = price;
  }
  return best;
}

function cheapestGreedy(options: readonly Option[], neededMb: number): Option[] {
  const chosen: Option[] = [];
  let mb = 0;
  for (const option of options.toSorted((a, b) => a.price / a.mb - b.price / b.mb)) {
    if (mb >= neededMb) break;
    chosen.push(option);
    mb += option.mb;
  }
  return chosen.filter((option) => {
    const superfluous = mb - option.mb >= neededMb;
    if (superfluous) mb -= option.mb;
    return !superfluous;
  });
}

function confirm({ state }: Context, instance: Instance): void {
  instance.asleep = true;
  // An unloaded worker takes no calls, even before its end is reported.
  if (instance.eviction?.level === "unload") instance.state = "releasing";
  instance.eviction = null;
  refreshInstance(state, instance);
  regroup(state, instance);
}

function refute(context: Context, instance: Instance, seenMb: number): void {
  const { eviction } = instance;
  if (eviction === null) return;
  eviction.refuted = true;
  context.decisions.push({
    type: "evict_refuted",
    instanceId: instance.id,
    replied: eviction.repliedAt !== null,
    expectedMb: eviction.expectedMb,
    seenMb: Math.max(0, seenMb),
  });
}

function isMeasuredWhere(state: SchedulerState, memory: Memory): boolean {
  return memory === "vram" ? state.host.gpusLive : state.host.ramFreeMb !== null;
}
