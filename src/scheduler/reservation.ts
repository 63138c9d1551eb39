import { RAM, type Candidate, type Context } from "./context.ts";
import type { Demand } from "./demand.ts";
import { availableRam, isIdleResident } from "./ledger.ts";
import type { Gpu, Hold, Instance, MemoryUse, SchedulerState } from "./state.ts";

/** A place seen as memory: a GPU or the host. */
interface Place {
  readonly availableMb: number;
  /** Will be seen free in the next sample. */
  readonly leavingMb: number;
  readonly instances: Iterable<string>;
  readonly use: (instance: Instance) => MemoryUse;
  readonly need: (demand: Demand) => number;
}

/**
 * When a place is expected to have `costMb` free for a candidate, and what is left beside it then.
 *
 * The reservation of EASY backfilling (D. Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995), on
 * memory instead of nodes: instances end in the order of their expected ends, idle ones at once,
 * and each gives back what it has reserved. Null: not even the end of all of ours would be enough.
 */
export function expectedStart(
  context: Context,
  candidate: Candidate,
  where: Gpu | typeof RAM,
  costMb: number,
): Omit<Hold, "jobId"> | null {
  const { state, now } = context;
  if (where !== RAM && where.exclusiveJob !== null) {
    return expectedIdle(context, [where.exclusiveJob]);
  }
  const place = placeOf(state, where);
  const ends = [{ at: now, mb: place.leavingMb }];
  for (const id of place.instances) {
    const instance = state.instances.get(id);
    if (instance === undefined) continue;
    const use = place.use(instance);
    const isOwn = instance === candidate.instance;
    // What its own instance holds stays; only what the jobs that run there add will be gone.
    const keptMb = isOwn ? Math.max(use.measuredMb, place.need(candidate.demand)) - costMb : 0;
    ends.push({ at: endOf(state, instance, now), mb: Math.max(0, use.reservedMb - keptMb) });
  }
  ends.sort((a, b) => a.at - b.at);
  let availableMb = place.availableMb;
  let at = now;
  for (const end of ends) {
    // Everything that ends by then counts as left over, not only what is needed.
    if (availableMb >= costMb && end.at > at) break;
    availableMb += end.mb;
    at = end.at;
  }
  if (availableMb >= costMb) return { at, extraMb: availableMb - costMb };
  // When its instance holds enough already, it starts as soon as the jobs that run there have ended.
  const isHeld = place.need(candidate.demand) <= place.use(candidate.instance).measuredMb;
  return isHeld ? { at: endOf(state, candidate.instance, now), extraMb: 0 } : null;
}

/** When nothing will run on a GPU (or in an instance); nothing is left beside a job that runs alone. */
export function expectedIdle(context: Context, jobIds: Iterable<string>): Omit<Hold, "jobId"> {
  let at = context.now;
  for (const id of jobIds) at = Math.max(at, jobEnd(context.state, id, context.now));
  return { at, extraMb: 0 };
}

/** Holds a place for a job, unless an earlier job does. */
export function claim(
  context: Context,
  place: string,
  jobId: string,
  hold: Omit<Hold, "jobId">,
): boolean {
  const { holds } = context.state;
  const holder = holds.get(place);
  if (holder !== undefined) return holder.jobId === jobId;
  holds.set(place, { jobId, ...hold });
  return true;
}

/**
 * Whether a later job may start at a place that an earlier one holds: within the bound, and only if
 * it ends before the holder is expected to start or uses what the holder will not need.
 *
 * `keptMb`: what the later job keeps from the holder at its expected start.
 */
export function mayPass(
  context: Context,
  place: string,
  { job, instance, demand }: Candidate,
  keptMb: number,
): boolean {
  const { state, now } = context;
  const hold = state.holds.get(place);
  if (hold === undefined || hold.jobId === job.request.jobId) return true;
  const holder = state.pending.get(hold.jobId);
  if (holder === undefined) return true;
  if (hold.aside === true) return keptMb <= hold.extraMb;
  if (state.rules.passBound && holder.passes >= state.config.maxPasses) return false;
  if (keptMb <= hold.extraMb) return true;
  if (demand.durationMs === null) return false;
  const loadMs = instance.state === "absent" ? (demand.loadMs ?? 0) : 0;
  return now + loadMs + demand.durationMs <= hold.at;
}

/** Counts a start at places that others hold against the bound, once per holder. */
export function countPasses(state: SchedulerState, jobId: string, places: Iterable<string>): void {
  const holders = new Set<string>();
  for (const place of places) {
    const hold = state.holds.get(place);
    if (hold !== undefined && hold.aside !== true && hold.jobId !== jobId) holders.add(hold.jobId);
  }
  for (const id of holders) {
    const holder = state.pending.get(id);
    if (holder !== undefined) holder.passes++;
  }
}

/**
 * What a job keeps from the holder of its GPU: its cost, and, when its instance was counted as gone
 * by then, all that the instance holds.
 */
export function keptFromHolder(
  context: Context,
  place: string,
  instance: Instance,
  costMb: number,
): number {
  const hold = context.state.holds.get(place);
  if (hold === undefined) return costMb;
  const goneByThen = endOf(context.state, instance, context.now) <= hold.at;
  return goneByThen ? instance.vram.reservedMb + costMb : costMb;
}

function placeOf(state: SchedulerState, where: Gpu | typeof RAM): Place {
  if (where === RAM) {
    return {
      availableMb: availableRam(state) ?? 0,
      leavingMb: state.host.ramLeavingMb,
      instances: state.present,
      use: (instance) => instance.ram,
      need: ({ ramMb }) => ramMb,
    };
  }
  return {
    availableMb: where.availableMb,
    leavingMb: where.leavingMb,
    instances: where.instances,
    use: (instance) => instance.vram,
    need: ({ vramMb }) => vramMb,
  };
}

function endOf(state: SchedulerState, instance: Instance, now: number): number {
  if (instance.running.size === 0) {
    const leaves = isIdleResident(instance) || instance.eviction !== null;
    return leaves || instance.state !== "loading" ? now : Infinity;
  }
  let at = now;
  for (const id of instance.running) at = Math.max(at, jobEnd(state, id, now));
  return at;
}

/** Start + max(95th percentile, 2 x elapsed): a job that overruns is expected to take as long again. */
function jobEnd(state: SchedulerState, jobId: string, now: number): number {
  const job = state.running.get(jobId);
  if (job === undefined) return now;
  if (job.expectedMs === null) return Infinity;
  return job.startedAt + Math.max(job.expectedMs, 2 * (now - job.startedAt));
}
