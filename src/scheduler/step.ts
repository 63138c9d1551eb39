import { diskReason, examine } from "./admission.ts";
import { sameBlock, type BlockReason } from "./block-reason.ts";
import { addPending, classHead, isBefore, regroup, removePending } from "./classes.ts";
import { RAM, type Candidate, type Context, type Verdict } from "./context.ts";
import { demandOf } from "./demand.ts";
import { judgeEviction, onEvictionReply } from "./eviction.ts";
import { forgetProcess, instanceOf, onInstanceChanged, onTelemetry } from "./instances.ts";
import { costOf, gpuOf, refreshInstance, setGpu } from "./ledger.ts";
import { countPasses, expectedStart } from "./reservation.ts";
import { UNKNOWN_GPU, type Instance, type JobClass, type PendingJob } from "./state.ts";
import type { RunningJob, SchedulerState } from "./state.ts";
import type { ResourceProfile } from "./profile.ts";
import type { Decision, JobRequest, SchedulerEvent } from "./types.ts";

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
  apply(context, event);
  admitWhatFits(context);
  return context.decisions;
}

function apply(context: Context, event: SchedulerEvent): void {
  const { state } = context;
  switch (event.type) {
    case "job_submitted":
      submit(context, event.job);
      break;
    case "job_finished":
      finish(context, event);
      break;
    case "job_removed":
      removePending(state, event.jobId);
      break;
    case "job_reprioritized":
      reprioritize(state, event);
      break;
    case "instance_changed":
      onInstanceChanged(context, event);
      break;
    case "telemetry":
      onTelemetry(context, event);
      break;
    case "profile_changed":
      setProfile(state, event.key, event.profile);
      break;
    case "eviction_finished":
      withInstance(state, event.instanceId, (instance) => {
        onEvictionReply(context, instance, event.replied);
      });
      break;
    case "tick":
      for (const id of state.present) {
        withInstance(state, id, (instance) => judgeEviction(context, instance, -Infinity));
      }
      break;
  }
}

function withInstance(state: SchedulerState, id: string, act: (instance: Instance) => void): void {
  const instance = state.instances.get(id);
  if (instance !== undefined) act(instance);
}

function submit(context: Context, request: JobRequest): void {
  const { state } = context;
  if (state.pending.has(request.jobId) || state.running.has(request.jobId)) return;
  instanceOf(state, request.instanceId, request.capability);
  const disk = state.config.admission === "permissive" ? null : diskReason(state);
  if (disk !== null) {
    reject(context, request, {
      resource: "disk_mb",
      neededMb: disk.neededMb,
      availableMb: disk.availableMb,
    });
    return;
  }
  addPending(state, { request, passes: 0, reason: null });
}

function finish(context: Context, event: Extract<SchedulerEvent, { type: "job_finished" }>): void {
  const { state, now } = context;
  const job = state.running.get(event.jobId);
  if (job === undefined) return;
  const instance = instanceOf(state, job.request.instanceId, job.request.capability);
  keepFloor(instance, now);
  state.running.delete(event.jobId);
  instance.running.delete(event.jobId);
  if (instance.exclusiveJob === event.jobId) instance.exclusiveJob = null;
  const gpu = job.gpu === null ? undefined : state.gpus.get(job.gpu);
  gpu?.running.delete(event.jobId);
  if (gpu?.exclusiveJob === event.jobId) gpu.exclusiveJob = null;
  if (event.outcome === "out_of_memory" && instance.state !== "absent") instance.tainted = true;
  if (instance.running.size === 0) onIdle(context, instance);
  refreshInstance(state, instance);
  regroup(state, instance);
}

/** What the ended job has left in its worker is unknown until a sample shows it. */
function keepFloor(instance: Instance, now: number): void {
  if (instance.state === "absent") return;
  for (const use of [instance.vram, instance.ram]) use.floorMb = use.reservedMb;
  instance.floorSince = now;
}

function onIdle({ state, now, decisions }: Context, instance: Instance): void {
  instance.idleSince = now;
  if (instance.state === "absent") {
    forgetProcess(state, instance);
  } else if (instance.tainted) {
    instance.state = "releasing";
    decisions.push({ type: "respawn", instanceId: instance.id, reason: "out_of_memory" });
  }
}

function reprioritize(
  state: SchedulerState,
  event: Extract<SchedulerEvent, { type: "job_reprioritized" }>,
): void {
  const job = removePending(state, event.jobId);
  if (job === undefined) return;
  const { priority, seq } = job.request;
  const request = {
    ...job.request,
    priority: event.priority ?? priority,
    seq: event.seq ?? seq,
  };
  addPending(state, { ...job, request });
}

function setProfile(state: SchedulerState, key: string, profile: ResourceProfile | null): void {
  const capability = (profile ?? state.profiles.get(key))?.key.capability;
  if (capability === undefined) return;
  const keys = state.keysOf.get(capability) ?? new Set();
  state.keysOf.set(capability, keys);
  if (profile === null) {
    keys.delete(key);
    state.profiles.delete(key);
  } else {
    keys.add(key);
    state.profiles.set(key, profile);
  }
}

/** Examines every class head in order, once; what is admitted lets the next of its class be examined. */
function admitWhatFits(context: Context): void {
  const { state } = context;
  const agenda = new Agenda(state);
  if (state.running.size < state.config.maxLanes) {
    for (const [place, { jobId, aside }] of state.holds) {
      if (aside !== true) context.heldBefore.set(jobId, place);
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
      demand: demandOf(state, request),
    };
    const verdict = refuse(state, examine(context, candidate));
    carryOut(context, candidate, verdict, jobClass);
    if (verdict.kind !== "block") agenda.addAwake();
  }
}

/** The awake classes in the order of their heads; each is examined once unless its head leaves. */
class Agenda {
  readonly #state: SchedulerState;
  readonly #done = new Set<string>();
  #classes: { jobClass: JobClass; job: PendingJob }[] = [];

  constructor(state: SchedulerState) {
    this.#state = state;
    this.addAwake();
  }

  /** Takes in classes that became awake, and the new head of the one that was taken last. */
  addAwake(): void {
    const entries: { jobClass: JobClass; job: PendingJob }[] = [];
    for (const id of this.#state.awake) {
      const jobClass = this.#state.classes.get(id);
      const job = jobClass === undefined ? undefined : classHead(this.#state, jobClass);
      if (jobClass === undefined || job === undefined) continue;
      if (!this.#done.has(job.request.jobId)) entries.push({ jobClass, job });
    }
    // Last first, so that the next one is at the end.
    this.#classes = entries.sort((a, b) => (isBefore(a.job.request, b.job.request) ? 1 : -1));
  }

  take(): { jobClass: JobClass; job: PendingJob } | null {
    const next = this.#classes.pop() ?? null;
    if (next !== null) this.#done.add(next.job.request.jobId);
    return next;
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

function reject(
  context: Context,
  request: JobRequest,
  { resource, neededMb, availableMb }: Omit<Extract<Verdict, { kind: "reject" }>, "kind">,
): void {
  context.decisions.push({
    type: "reject",
    jobId: request.jobId,
    shortfall: { resource, needed: Math.ceil(neededMb), available: Math.floor(availableMb) },
    advice: ADVICE[resource],
  });
}

const ADVICE = {
  gpu_vram_mb:
    "No GPU of this machine is large enough: use a smaller input, batch or context, a quantized model, or a GPU with more memory.",
  system_ram_mb: "Use a smaller input, or close programs that hold memory.",
  disk_mb: "Free disk space, or lower the minimum that is kept free.",
} as const;
