import type { Gpu, Instance, SchedulerState } from "./state.ts";

/** An independent copy. `step` changes its state in place; a search that branches copies first. */
export function cloneState(state: SchedulerState): SchedulerState {
  const gpus = cloneMap(state.gpus, cloneGpu);
  return {
    config: state.config,
    rules: state.rules,
    pending: cloneMap(state.pending, (job) => ({ ...job })),
    running: new Map(state.running),
    instances: cloneMap(state.instances, cloneInstance),
    present: new Set(state.present),
    gpus,
    gpuOrder: state.gpuOrder.map(({ uuid }) => gpus.get(uuid)).filter((gpu) => gpu !== undefined),
    evictableGpus: new Set(state.evictableGpus),
    lines: cloneMap(state.lines, (line) => ({ ...line, heap: [...line.heap] })),
    classes: cloneMap(state.classes, (each) => ({ ...each, heap: [...each.heap] })),
    awake: new Set(state.awake),
    profiles: new Map(state.profiles),
    keysOf: cloneMap(state.keysOf, (keys) => new Set(keys)),
    holds: new Map(state.holds),
    host: { ...state.host },
  };
}

/**
 * Text that is equal for states which will decide alike at equal times: everything but the inner
 * layout of the heaps and the reasons that were announced last.
 */
export function canonicalKey(state: SchedulerState): string {
  return [
    ...entries(state.pending, ({ request, passes }) => [request.priority, request.seq, passes]),
    "|",
    ...entries(state.running, ({ gpu, exclusive, startedAt }) => [gpu, exclusive, startedAt]),
    "|",
    ...entries(state.instances, instanceKey),
    "|",
    ...entries(state.gpus, ({ totalMb, freeMb, leavingMb, exclusiveJob, present }) => [
      totalMb,
      freeMb,
      leavingMb,
      exclusiveJob,
      present,
    ]),
    "|",
    ...entries(state.holds, ({ jobId, aside }) => [jobId, aside]),
    "|",
    ...[...state.awake].sort(),
    "|",
    ...[...state.profiles.keys()].sort(),
    Object.values(state.host).join(","),
  ].join(";");
}

function instanceKey(instance: Instance): unknown[] {
  const { vram, ram, eviction } = instance;
  return [
    instance.state,
    instance.gpu,
    instance.maxConcurrent,
    instance.exclusiveJob,
    vram.sampledMb,
    vram.measuredMb,
    vram.floorMb,
    ram.sampledMb,
    ram.measuredMb,
    ram.floorMb,
    instance.baseVramMb,
    instance.concurrentVramMb.join("/"),
    instance.asleep,
    instance.tainted,
    instance.idleSince,
    eviction === null ? "" : Object.values(eviction).join("/"),
  ];
}

function entries<Value>(map: Map<string, Value>, key: (value: Value) => unknown[]): string[] {
  return [...map].map(([id, value]) => `${id},${key(value).join(",")}`).sort();
}

function cloneMap<Value>(
  map: Map<string, Value>,
  clone: (value: Value) => Value,
): Map<string, Value> {
  const copy = new Map<string, Value>();
  for (const [key, value] of map) copy.set(key, clone(value));
  return copy;
}

function cloneGpu(gpu: Gpu): Gpu {
  return { ...gpu, instances: new Set(gpu.instances), running: new Set(gpu.running) };
}

function cloneInstance(instance: Instance): Instance {
  return {
    ...instance,
    running: new Set(instance.running),
    vram: { ...instance.vram },
    ram: { ...instance.ram },
    concurrentVramMb: [...instance.concurrentVramMb],
    eviction: instance.eviction === null ? null : { ...instance.eviction },
    lines: new Set(instance.lines),
  };
}
