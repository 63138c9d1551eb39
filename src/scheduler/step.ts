import { examine } from "./admission.ts";
import { Agenda } from "./agenda.ts";
import { sameBlock, type BlockReason } from "./block-reason.ts";
import { regroup, removePending } from "./classes.ts";
import { RAM, type Candidate, type Context, type Verdict } from "./context.ts";
import { demandOf, demandOfClass } from "./demand.ts";
import { apply } from "./events.ts";
import { instanceOf } from "./instances.ts";
import { costOf, gpuOf, refreshInstance, setGpu } from "./ledger.ts";
import { reject } from "./reject.ts";
import { countPasses, expectedStart } from "./reservation.ts";
import { UNKNOWN_GPU, type Instance, type JobClass, type PendingJob } from "./state.ts";
import type { RunningJob, SchedulerState } from "./state.ts";
import type { Decision, SchedulerEvent } from "./types.ts";

/**
 * The reducer: takes one event and says what to do about it.
 *
 * Changes `state` in place, in O(classes + log n), and never looks at a clock: `now` comes with the
 * event and must not go back. Decisions are in the order in which they were taken; each must be
 * carried out, and its outcome come back as an event. Never throws for an event that names a job or
 * an instance it does not know; such an event changes nothing.
 */
export function step(state: SchedulerState, event: SchedulerEvent): Decision[] {
  const context: Context = {
    state,
    now: event.now,
    decisions: [],
    heldBefore: new Map(),
    anywhereHeld: false,
  };
  state.host.changed = false;
  apply(context, event);
  // Most events of a full machine free nothing and bring no new head: then nobody can start.
  if (state.host.changed || state.fresh.size > 0) admitWhatFits(context);
  return context.decisions;
}

/** Examines every class head in order, once; what is admitted lets the next of its class be examined. */
function admitWhatFits(context: Context): void {
  const { state } = context;
  const agenda = new Agenda(state);
  if (state.running.size < state.config.maxLanes) {
    for (const [place, { jobId }] of state.holds) {
      if (state.gpus.has(place)) context.heldBefore.set(jobId, place);
    }
    state.holds.clear();
  }
  for (let next = agenda.take(); next !== null; next = agenda.take()) {
    const { jobClass, job } = next;
    if (state.running.size >= state.config.maxLanes) {
      announce(context, job, {
        kind: "lanes",
        inUse: state.running.size,
        limit: state.config.maxLanes,
      });
      continue;
    }
    const { request } = job;
    const candidate: Candidate = {
      job,
      instance: instanceOf(state, request.instanceId, request.capability),
      demand: demandOfClass(state, jobClass, request),
    };
    const verdict = refuse(state, examine(context, candidate));
    carryOut(context, candidate, verdict, jobClass);
    if (verdict.kind !== "block") agenda.addFresh();
  }
}

/** With `refuse`, what does not fit now fails instead of waiting; lanes and turns are waited for. */
function refuse(state: SchedulerState, verdict: Verdict): Verdict {
  if (state.config.admission !== "refuse" || verdict.kind !== "block") return verdict;
  const { reason } = verdict;
  if (reason.kind !== "vram" && reason.kind !== "ram" && reason.kind !== "disk") return verdict;
  const resource = ({ vram: "gpu_vram_mb", ram: "system_ram_mb", disk: "disk_mb" } as const)[
    reason.kind
  ];
  return { kind: "reject", resource, neededMb: reason.neededMb, availableMb: reason.availableMb };
}

function carryOut(
  context: Context,
  candidate: Candidate,
  verdict: Verdict,
  jobClass: JobClass,
): void {
  const { state } = context;
  switch (verdict.kind) {
    case "admit":
      admit(context, candidate, verdict);
      break;
    case "block":
      announce(context, candidate.job, verdict.reason);
      if (verdict.parked === true) state.awake.delete(jobClass.id);
      break;
    case "reject":
      removePending(state, candidate.job.request.jobId);
      reject(context, candidate.job.request, verdict);
      break;
  }
}

function announce(context: Context, job: PendingJob, reason: BlockReason): void {
  const changed = !sameBlock(job.reason, reason);
  job.reason = reason;
  if (changed) context.decisions.push({ type: "block", jobId: job.request.jobId, reason });
}

function admit(
  context: Context,
  candidate: Candidate,
  placement: Extract<Verdict, { kind: "admit" }>,
): void {
  const { state } = context;
  const { job, instance, demand } = candidate;
  const { jobId } = job.request;
  const cost = costOf(state, instance, demand);
  removePending(state, jobId);
  state.running.set(jobId, runningJob(context, candidate, placement));
  occupy(state, jobId, instance, placement);
  instance.loadMs = demand.loadMs ?? instance.loadMs;
  refreshInstance(state, instance);
  regroup(state, instance);
  const places = [instance.id];
  if (placement.usesGpu && placement.gpu !== null) places.push(placement.gpu);
  if (cost.ramMb > 0) places.push(RAM);
  countPasses(state, jobId, places);
  renewHolds(context, places);
  context.decisions.push({
    type: "admit",
    jobId,
    instanceId: instance.id,
    gpuUuid: placement.gpu === UNKNOWN_GPU ? null : placement.gpu,
    exclusive: placement.exclusive,
    reservedMb: cost.vramMb,
    borrowedFrom: demand.borrowedFrom,
    lanesInUse: state.running.size,
    statsAvailable: state.host.gpusLive,
  });
}

function occupy(
  state: SchedulerState,
  jobId: string,
  instance: Instance,
  { gpu: uuid, usesGpu, exclusive }: Extract<Verdict, { kind: "admit" }>,
): void {
  instance.running.add(jobId);
  instance.asleep = false;
  state.present.add(instance.id);
  if (instance.state === "absent") instance.state = "loading";
  if (exclusive) instance.exclusiveJob = jobId;
  setGpu(state, instance, uuid);
  if (!usesGpu || uuid === null) return;
  const gpu = gpuOf(state, uuid);
  gpu.running.add(jobId);
  if (exclusive) gpu.exclusiveJob = jobId;
}

function runningJob(
  { now }: Context,
  { job, instance, demand }: Candidate,
  { gpu, usesGpu, exclusive }: Extract<Verdict, { kind: "admit" }>,
): RunningJob {
  const loadMs = instance.state === "absent" ? (demand.loadMs ?? 0) : 0;
  return {
    request: job.request,
    startedAt: now,
    gpu: usesGpu ? gpu : null,
    exclusive,
    vramMb: demand.vramMb,
    ramMb: demand.ramMb,
    expectedMs: demand.durationMs === null ? null : demand.durationMs + loadMs,
  };
}

/** A start at a held place changes what is left beside the holder. */
function renewHolds(context: Context, places: readonly string[]): void {
  const { state } = context;
  for (const place of places) {
    const hold = state.holds.get(place);
    const holder = hold === undefined ? undefined : state.pending.get(hold.jobId);
    if (hold === undefined || holder === undefined || hold.extraMb <= 0) continue;
    const { request } = holder;
    const instance = instanceOf(state, request.instanceId, request.capability);
    const candidate = { job: holder, instance, demand: demandOf(state, request) };
    const cost = costOf(state, instance, candidate.demand);
    const gpu = state.gpus.get(place);
    if (place !== RAM && gpu === undefined) continue;
    const renewed =
      gpu === undefined
        ? expectedStart(context, candidate, RAM, cost.ramMb)
        : expectedStart(context, candidate, gpu, cost.vramMb);
    state.holds.set(place, { ...hold, ...(renewed ?? { at: Infinity, extraMb: 0 }) });
  }
}
