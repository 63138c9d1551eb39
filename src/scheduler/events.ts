import { addPending, regroup, removePending } from "./classes.ts";
import { diskReason } from "./admission.ts";
import { RAM, type Context } from "./context.ts";
import { demandOf } from "./demand.ts";
import { judgeEviction, onEvictionReply } from "./eviction.ts";
import { forgetProcess, instanceOf, onInstanceChanged, onTelemetry } from "./instances.ts";
import { refreshInstance } from "./ledger.ts";
import type { ResourceProfile } from "./profile.ts";
import { reject } from "./reject.ts";
import type { Instance, RunningJob, SchedulerState } from "./state.ts";
import type { JobRequest, SchedulerEvent } from "./types.ts";

/** Takes one event into the state; what may start because of it is examined afterwards. */
export function apply(context: Context, event: SchedulerEvent): void {
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
      state.host.changed = true;
      break;
    case "telemetry":
      onTelemetry(context, event);
      state.host.changed = true;
      break;
    case "profile_changed":
      setProfile(state, event.key, event.profile);
      state.host.changed = true;
      break;
    case "eviction_finished":
      withInstance(state, event.instanceId, (instance) => {
        onEvictionReply(context, instance, event.replied);
      });
      state.host.changed = true;
      break;
    case "tick":
      for (const id of state.present) {
        withInstance(state, id, (instance) => judgeEviction(context, instance, -Infinity));
      }
      state.host.changed = true;
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
  keepFloor(state, instance, job, now);
  leavePlaces(state, instance, job);
  if (event.outcome === "out_of_memory" && instance.state !== "absent") instance.tainted = true;
  if (instance.running.size === 0) onIdle(context, instance);
  refreshInstance(state, instance);
  regroup(state, instance);
}

/** Notes when lanes, RAM, or a GPU that others wait to have alone, may be free now. */
function leavePlaces(state: SchedulerState, instance: Instance, job: RunningJob): void {
  const { jobId } = job.request;
  const wereLanesFull = state.running.size >= state.config.maxLanes;
  if (wereLanesFull || job.exclusive || state.holds.has(RAM)) state.host.changed = true;
  state.running.delete(jobId);
  instance.running.delete(jobId);
  if (instance.exclusiveJob === jobId) instance.exclusiveJob = null;
  const gpu = job.gpu === null ? undefined : state.gpus.get(job.gpu);
  if (gpu === undefined) return;
  gpu.running.delete(jobId);
  if (gpu.running.size === 0) state.host.changed = true;
  if (gpu.exclusiveJob === jobId) gpu.exclusiveJob = null;
}

/**
 * What the ended job has left in its worker is unknown until a sample shows it: as much as was
 * reserved for it, or, after a run that measured, its peak, or all of the GPU.
 */
function keepFloor(state: SchedulerState, instance: Instance, job: RunningJob, now: number): void {
  if (instance.state === "absent") return;
  const { vram, ram } = instance;
  vram.floorMb = vram.reservedMb;
  ram.floorMb = ram.reservedMb;
  instance.floorSince = now;
  if (!job.exclusive) return;
  const measured = demandOf(state, job.request);
  const isKnown = measured.alone === null || !state.host.gpusLive;
  const wholeMb = job.gpu === null ? 0 : (state.gpus.get(job.gpu)?.totalMb ?? 0);
  vram.floorMb = Math.max(vram.floorMb, isKnown ? measured.vramMb : wholeMb);
  ram.floorMb = Math.max(ram.floorMb, measured.ramMb);
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
  state.host.knowledge++;
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
