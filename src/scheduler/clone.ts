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
    fresh: new Set(state.fresh),
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
  const { host } = state;
  return [
    `${host.gpusLive},${host.ramFreeMb},${host.ramPromisedMb},${host.ramLeavingMb}`,
    host.diskFreeMb,
    keyOf(state.pending, ({ request, passes }) => `${request.priority},${request.seq},${passes}`),
    keyOf(state.running, ({ gpu, exclusive, startedAt }) => `${gpu},${exclusive},${startedAt}`),
    keyOf(state.instances, instanceKey),
    keyOf(state.gpus, gpuKey),
    keyOf(state.holds, ({ jobId, aside }) => `${jobId},${aside}`),
    sorted(state.awake).join(","),
    sorted(state.profiles.keys()).join(","),
  ].join("|");
}

function gpuKey({ totalMb, freeMb, leavingMb, exclusiveJob, present }: Gpu): string {
  return `${totalMb},${freeMb},${leavingMb},${exclusiveJob},${present}`;
}

function instanceKey(instance: Instance): string {
  const { state, gpu, vram, ram, eviction } = instance;
  let key = `${state},${gpu},${instance.maxConcurrent},${instance.exclusiveJob},`;
  key += `${vram.sampledMb},${vram.measuredMb},${vram.floorMb},`;
  key += `${ram.sampledMb},${ram.measuredMb},${ram.floorMb},${instance.baseVramMb},`;
  key += `${instance.asleep},${instance.tainted},${instance.idleSince},`;
  if (instance.concurrentVramMb.length > 0) key += instance.concurrentVramMb.join("/");
  return eviction === null ? `${key};` : `${key}${Object.values(eviction).join("/")};`;
}

function keyOf<Value>(map: Map<string, Value>, key: (value: Value) => string): string {
  let text = "";
  if (map.size < 2) for (const [id, value] of map) text += `${id},${key(value)};`;
  else {
    for (const id of sorted(map.keys())) {
      const value = map.get(id);
      if (value !== undefined) text += `${id},${key(value)};`;
    }
  }
  return text;
}

function sorted(ids: Iterable<string>): string[] {
  return [...ids].sort();
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
