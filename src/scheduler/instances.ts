import { regroup } from "./classes.ts";
import type { Context } from "./context.ts";
import { judgeEviction } from "./eviction.ts";
import {
  gpuOf,
  marginOf,
  refreshAll,
  refreshInstance,
  refreshSet,
  setGpu,
  setRamSample,
} from "./ledger.ts";
import { UNKNOWN_GPU, type Instance, type MemoryUse, type SchedulerState } from "./state.ts";
import type { InstanceSample, SchedulerEvent } from "./types.ts";

type InstanceChanged = Extract<SchedulerEvent, { type: "instance_changed" }>;
type Telemetry = Extract<SchedulerEvent, { type: "telemetry" }>;

const NOTHING: Omit<InstanceSample, "instanceId"> = { vramMb: 0, ramMb: 0 };

/** The record of an instance; made when a job or an event names it first. */
export function instanceOf(state: SchedulerState, id: string, capability: string): Instance {
  let instance = state.instances.get(id);
  if (instance === undefined) {
    instance = {
      id,
      capability,
      state: "absent",
      gpu: null,
      maxConcurrent: 1,
      running: new Set(),
      exclusiveJob: null,
      vram: noMemory(),
      ram: noMemory(),
      baseVramMb: 0,
      concurrentVramMb: [],
      floorSince: 0,
      idleSince: 0,
      eviction: null,
      asleep: false,
      tainted: false,
      loadMs: null,
      lines: new Set(),
    };
    state.instances.set(id, instance);
  }
  return instance;
}

export function onInstanceChanged({ state, now }: Context, event: InstanceChanged): void {
  const instance = instanceOf(state, event.instanceId, event.capability);
  const before = instance.state;
  instance.capability = event.capability;
  instance.maxConcurrent = event.maxConcurrent;
  instance.state = event.state;
  if (event.state === "absent") {
    forgetProcess(state, instance);
  } else {
    state.present.add(instance.id);
    setGpu(state, instance, event.gpuUuid ?? unreportedGpu(instance));
    instance.vram.measuredMb = event.observedVramMb ?? instance.vram.measuredMb;
    instance.ram.measuredMb = event.observedRamMb ?? instance.ram.measuredMb;
  }
  if (event.state === "ready" && before !== "ready") {
    instance.idleSince = now;
    if (before !== "releasing") instance.baseVramMb = event.observedVramMb ?? 0;
  }
  refreshInstance(state, instance);
  regroup(state, instance);
}

/** Where an instance stays that was started without naming a GPU. */
function unreportedGpu(instance: Instance): string | null {
  return instance.running.size > 0 || instance.gpu === UNKNOWN_GPU ? instance.gpu : null;
}

/** What a worker that has ended leaves behind: nothing. Its jobs stay until they are reported. */
export function forgetProcess(state: SchedulerState, instance: Instance): void {
  for (const use of [instance.vram, instance.ram]) {
    use.measuredMb = 0;
    use.floorMb = 0;
  }
  instance.eviction = null;
  instance.asleep = false;
  instance.tainted = false;
  instance.baseVramMb = 0;
  if (instance.running.size > 0) return;
  if (instance.gpu !== null) gpuOf(state, instance.gpu).leavingMb += instance.vram.sampledMb;
  setGpu(state, instance, null);
  refreshInstance(state, instance);
  state.host.ramLeavingMb += instance.ram.sampledMb;
  setRamSample(state, instance, 0);
  instance.vram.sampledMb = 0;
  state.present.delete(instance.id);
}

export function onTelemetry(context: Context, event: Telemetry): void {
  const { state } = context;
  const takenAt = event.takenAt ?? event.now;
  state.host.ramFreeMb = event.ramFreeMb;
  state.host.ramLeavingMb = 0;
  state.host.ramTotalMb = event.ramTotalMb ?? state.host.ramTotalMb;
  state.host.diskFreeMb = event.diskFreeMb;
  state.host.gpusLive = event.gpus !== null && event.gpus.length > 0;
  if (event.gpus !== null) {
    for (const gpu of state.gpus.values()) gpu.present = false;
    for (const { uuid, totalMb, freeMb } of event.gpus) {
      const marginMb = marginOf(state, totalMb);
      Object.assign(gpuOf(state, uuid), {
        totalMb,
        freeMb,
        marginMb,
        leavingMb: 0,
        present: true,
      });
    }
  }
  takeSamples(state, event, takenAt);
  refreshAll(state);
  for (const id of state.present) {
    const instance = state.instances.get(id);
    if (instance?.eviction !== null && instance !== undefined) {
      judgeEviction(context, instance, takenAt);
    }
  }
}

function takeSamples(state: SchedulerState, event: Telemetry, takenAt: number): void {
  const samples = new Map(event.instances.map((sample) => [sample.instanceId, sample]));
  for (const id of state.present) {
    const instance = state.instances.get(id);
    if (instance === undefined) continue;
    const sample = samples.get(id) ?? NOTHING;
    const { vram, ram } = instance;
    if (event.gpus !== null) {
      vram.sampledMb = sample.vramMb;
      vram.measuredMb = sample.vramMb;
      raiseConcurrent(state, instance, Math.max(sample.vramMb, sample.vramPeakMb ?? 0));
    }
    setRamSample(state, instance, sample.ramMb);
    ram.measuredMb = sample.ramMb;
    if (takenAt < instance.floorSince) continue;
    vram.floorMb = 0;
    ram.floorMb = 0;
  }
}

function raiseConcurrent(state: SchedulerState, instance: Instance, seenMb: number): void {
  const jobs = instance.running.size;
  if (jobs < 2 || seenMb <= (instance.concurrentVramMb[jobs] ?? 0)) return;
  instance.concurrentVramMb[jobs] = seenMb;
  refreshSet(state, instance);
}

function noMemory(): MemoryUse {
  return { sampledMb: 0, measuredMb: 0, admittedMb: 0, reservedMb: 0, floorMb: 0 };
}
