import type { Gpu, Instance, MemoryUse } from "./state.ts";
import type { RunningJob, SchedulerState } from "./state.ts";

/** The part of a demand that the ledger counts, in MB. */
export interface Need {
  readonly vramMb: number;
  readonly ramMb: number;
}

const MIN_MARGIN_MB = 512;
const MARGIN_SHARE = 0.05;

/**
 * What an instance must be able to hold if `extra` joined the jobs that run in it.
 *
 * The jobs of a set share what the instance held before its first job and add the rest of their
 * peaks; a measured peak of as many concurrent jobs can only raise that.
 */
function vramOfSet(state: SchedulerState, instance: Instance, extra: Need | null): number {
  const base = instance.baseVramMb;
  let jobs = 0;
  let sum = 0;
  let largest = 0;
  const add = ({ vramMb }: Need): void => {
    jobs++;
    sum += Math.max(0, vramMb - base);
    largest = Math.max(largest, vramMb);
  };
  for (const job of runningIn(state, instance)) add(job);
  if (extra !== null) add(extra);
  const together = jobs > 1 ? (instance.concurrentVramMb[jobs] ?? 0) : 0;
  return Math.max(sum > 0 ? base + sum : largest, together);
}

/** RAM of the set: the sum of the peaks, since how much of it is shared is not measured. */
function ramOfSet(state: SchedulerState, instance: Instance, extra: Need | null): number {
  let sum = extra?.ramMb ?? 0;
  for (const { ramMb } of runningIn(state, instance)) sum += ramMb;
  return sum;
}

/** What admitting a job would add to the reservations of its instance, in MB. */
export interface Cost extends Need {
  /** The instance already holds all that the job and those beside it can come to use. */
  readonly isVramHeld: boolean;
  readonly isRamHeld: boolean;
}

export function costOf(state: SchedulerState, instance: Instance, need: Need): Cost {
  const { vram, ram } = instance;
  const vramSet = vramOfSet(state, instance, need);
  const ramSet = ramOfSet(state, instance, need);
  return {
    vramMb: Math.max(standing(vram), vramSet) - vram.reservedMb,
    ramMb: Math.max(standing(ram), ramSet) - ram.reservedMb,
    isVramHeld: vramSet <= vram.measuredMb,
    isRamHeld: ramSet <= ram.measuredMb,
  };
}

/** Recomputes what the jobs of an instance need together, after that set has changed. */
export function refreshSet(state: SchedulerState, instance: Instance): void {
  instance.vram.admittedMb = vramOfSet(state, instance, null);
  instance.ram.admittedMb = ramOfSet(state, instance, null);
}

/** Recomputes one instance's reservations and what depends on them. */
export function refreshInstance(state: SchedulerState, instance: Instance): void {
  refreshSet(state, instance);
  updateReservations(state, instance);
  const gpu = instance.gpu === null ? undefined : state.gpus.get(instance.gpu);
  if (gpu !== undefined) refreshGpu(state, gpu);
}

/** Recomputes everything, after an event that touched every place. */
export function refreshAll(state: SchedulerState): void {
  for (const id of state.present) {
    const instance = state.instances.get(id);
    if (instance !== undefined) updateReservations(state, instance);
  }
  state.host.largestGpuMb = 0;
  state.gpuOrder.length = 0;
  for (const gpu of state.gpus.values()) {
    updateAvailable(state, gpu);
    if (!gpu.present) continue;
    state.gpuOrder.push(gpu);
    state.host.largestGpuMb = Math.max(state.host.largestGpuMb, gpu.totalMb - gpu.marginMb);
  }
  state.gpuOrder.sort((a, b) => a.availableMb - b.availableMb);
  state.host.knowledge++;
}

/** Moves an instance to a GPU in the ledger; null takes it off. */
export function setGpu(state: SchedulerState, instance: Instance, uuid: string | null): void {
  if (instance.gpu === uuid) return;
  const before = instance.gpu === null ? undefined : state.gpus.get(instance.gpu);
  before?.instances.delete(instance.id);
  instance.gpu = uuid;
  const after = uuid === null ? undefined : gpuOf(state, uuid);
  after?.instances.add(instance.id);
  if (before !== undefined) refreshGpu(state, before);
  if (after !== undefined) refreshGpu(state, after);
}

/** The entry of a GPU; made when it is named before a sample listed it. */
export function gpuOf(state: SchedulerState, uuid: string): Gpu {
  let gpu = state.gpus.get(uuid);
  if (gpu === undefined) {
    gpu = {
      uuid,
      totalMb: 0,
      freeMb: 0,
      marginMb: 0,
      leavingMb: 0,
      availableMb: 0,
      instances: new Set(),
      running: new Set(),
      exclusiveJob: null,
      present: false,
    };
    state.gpus.set(uuid, gpu);
  }
  return gpu;
}

export function marginOf(state: SchedulerState, totalMb: number): number {
  return state.config.vramMarginMb ?? Math.max(MIN_MARGIN_MB, totalMb * MARGIN_SHARE);
}

/** Whether `costMb` more may be promised on this GPU now. */
export function fits(state: SchedulerState, gpu: Gpu, costMb: number): boolean {
  if (state.rules.memoryTest === "joint") return costMb <= gpu.availableMb;
  const reserved = sumOver(state, gpu, (instance) => instance.vram.reservedMb);
  const mb = costMb + gpu.marginMb;
  return mb <= gpu.freeMb && reserved + mb <= gpu.totalMb;
}

/** RAM that may still be promised; null when it is not measured. */
export function availableRam(state: SchedulerState): number | null {
  const { ramFreeMb, ramPromisedMb } = state.host;
  return ramFreeMb === null ? null : ramFreeMb - ramPromisedMb - state.config.ramMarginMb;
}

/** An idle instance that could be asked to give something back. */
export function isIdleResident(instance: Instance): boolean {
  return (
    instance.state === "ready" &&
    instance.running.size === 0 &&
    instance.eviction === null &&
    !instance.tainted
  );
}

export function sumOver(
  state: SchedulerState,
  gpu: Gpu,
  amount: (instance: Instance) => number,
): number {
  let sum = 0;
  for (const id of gpu.instances) {
    const instance = state.instances.get(id);
    if (instance !== undefined) sum += amount(instance);
  }
  return sum;
}

function runningIn(state: SchedulerState, { running }: Instance): RunningJob[] {
  const jobs: RunningJob[] = [];
  for (const id of running) {
    const job = state.running.get(id);
    if (job !== undefined) jobs.push(job);
  }
  return jobs;
}

/** What an instance holds whatever runs in it. */
function standing(use: MemoryUse): number {
  return Math.max(use.measuredMb, use.floorMb);
}

function updateReservations(state: SchedulerState, instance: Instance): void {
  const { vram, ram } = instance;
  vram.reservedMb = Math.max(standing(vram), vram.admittedMb);
  const promisedBefore = promised(ram);
  ram.reservedMb = Math.max(standing(ram), ram.admittedMb);
  changeRamPromised(state, promised(ram) - promisedBefore);
}

/** The sum of RAM promises is kept up to date by differences, so a sample is changed here. */
export function setRamSample(state: SchedulerState, instance: Instance, sampledMb: number): void {
  const before = promised(instance.ram);
  instance.ram.sampledMb = sampledMb;
  changeRamPromised(state, promised(instance.ram) - before);
}

function changeRamPromised({ host }: SchedulerState, byMb: number): void {
  host.ramPromisedMb += byMb;
  if (byMb < 0) host.changed = true;
}

function promised(use: MemoryUse): number {
  return Math.max(0, use.reservedMb - use.sampledMb);
}

/** Moves one GPU to its new place in the order. */
export function refreshGpu(state: SchedulerState, gpu: Gpu): void {
  updateAvailable(state, gpu);
  if (!gpu.present) return;
  const at = state.gpuOrder.indexOf(gpu);
  if (at >= 0) state.gpuOrder.splice(at, 1);
  state.gpuOrder.splice(firstWith(state, gpu.availableMb), 0, gpu);
}

/** Index in `gpuOrder` of the first GPU with at least this much available. */
export function firstWith(state: SchedulerState, availableMb: number): number {
  let low = 0;
  let high = state.gpuOrder.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((state.gpuOrder[middle]?.availableMb ?? Infinity) < availableMb) low = middle + 1;
    else high = middle;
  }
  return low;
}

function updateAvailable(state: SchedulerState, gpu: Gpu): void {
  let evictable = false;
  let promisedMb = 0;
  for (const id of gpu.instances) {
    const instance = state.instances.get(id);
    if (instance === undefined) continue;
    promisedMb += promised(instance.vram);
    evictable ||= isIdleResident(instance) && instance.vram.sampledMb > 0;
  }
  const availableMb = gpu.freeMb - gpu.marginMb - promisedMb;
  if (availableMb > gpu.availableMb || evictable) state.host.changed = true;
  gpu.availableMb = availableMb;
  if (evictable && gpu.present) state.evictableGpus.add(gpu.uuid);
  else state.evictableGpus.delete(gpu.uuid);
}
