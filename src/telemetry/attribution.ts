import type { GpuState } from "./gpu-sample.ts";

/** How it is known whose memory it is, surest first. */
export type AttributionMethod = "pid" | "nspid" | "cgroup" | "delta";

/** 1 is certain. A PID that matches in another namespace may be a coincidence; a difference may be anybody's. */
export const CONFIDENCE: Readonly<Record<AttributionMethod, number>> = {
  pid: 1,
  nspid: 0.9,
  cgroup: 0.8,
  delta: 0.5,
};

export interface Attribution {
  readonly bytes: number;
  /** The least sure way that contributed. */
  readonly method: AttributionMethod;
  readonly confidence: number;
}

/** An instance's process tree, as far as attribution needs it. */
export interface InstanceTree {
  readonly instanceId: string;
  readonly rootPid: number;
  readonly pids: ReadonlySet<number>;
  /** Numbers of the tree's processes inside their own PID namespaces. */
  readonly innerPids: ReadonlySet<number>;
  /** Null where it is shared with the host and so proves nothing. */
  readonly cgroup: string | null;
}

export interface AttributionContext {
  readonly trees: readonly InstanceTree[];
  /** The sample's pids are numbers of our own PID namespace. */
  readonly isOurNamespace: boolean;
  parent(pid: number): number | undefined;
  cgroup(pid: number): string | null;
}

export interface GpuAttribution {
  readonly uuid: string;
  readonly instances: ReadonlyMap<string, Attribution>;
  /** Held by processes that are nobody's of ours; null where the device does not say. */
  readonly foreignBytes: number | null;
  /** In use, but by whom was not said: the driver's own, or holders without a visible pid. */
  readonly residualBytes: number | null;
  /** Holders exist whose memory or identity is not known, so a difference may stand in. */
  readonly isIncomplete: boolean;
}

/**
 * Says whose memory is in use on one GPU.
 *
 * In order: the holder's pid is in a tree or descends from one; its number is one that a tree's
 * process has inside its own PID namespace (containers, whose monitors see other numbers); it lives
 * in a tree's control group. What is left is foreign, or residual where the holder is not visible.
 */
export function attributeGpu(gpu: GpuState, context: AttributionContext): GpuAttribution {
  const instances = new Map<string, Attribution>();
  let foreignBytes = 0;
  let knownBytes = 0;
  let isIncomplete = gpu.processes === null || gpu.processes === undefined;
  for (const { pid, memory_bytes: bytes } of gpu.processes ?? []) {
    const owner = findOwner(pid, context);
    if (owner === "invisible" || typeof bytes !== "number") {
      isIncomplete = true;
      continue;
    }
    knownBytes += bytes;
    if (owner === "foreign") foreignBytes += bytes;
    else instances.set(owner.instanceId, add(instances.get(owner.instanceId), bytes, owner.method));
  }
  const usedBytes = gpu.memory_used_bytes ?? null;
  return {
    uuid: gpu.uuid,
    instances,
    foreignBytes: gpu.processes ? foreignBytes : null,
    residualBytes: usedBytes === null ? null : Math.max(0, usedBytes - knownBytes),
    isIncomplete,
  };
}

/** The sum of two attributions, as sure as the less sure one. */
export function add(
  before: Attribution | undefined,
  bytes: number,
  method: AttributionMethod,
): Attribution {
  const isSurer = before !== undefined && CONFIDENCE[before.method] < CONFIDENCE[method];
  const least = isSurer ? before.method : method;
  return { bytes: (before?.bytes ?? 0) + bytes, method: least, confidence: CONFIDENCE[least] };
}

type Owner =
  { readonly instanceId: string; readonly method: AttributionMethod } | "foreign" | "invisible";

function findOwner(pid: number, context: AttributionContext): Owner {
  const isVisible = context.isOurNamespace && context.parent(pid) !== undefined;
  if (isVisible) {
    return ownerByDescent(pid, context) ?? ownerByCgroup(pid, context) ?? "foreign";
  }
  const candidates = context.trees.filter((tree) => tree.innerPids.has(pid));
  const [only, ...others] = candidates;
  // Every container has a process 1 or 2: two candidates are no proof for either.
  if (only === undefined || others.length > 0) return "invisible";
  return { instanceId: only.instanceId, method: "nspid" };
}

function ownerByDescent(pid: number, context: AttributionContext): Owner | undefined {
  let current: number | undefined = pid;
  for (let depth = 0; depth < 64 && current !== undefined && current > 1; depth += 1) {
    const ancestor = current;
    const tree = context.trees.find(
      ({ pids, rootPid }) => ancestor === rootPid || pids.has(ancestor),
    );
    if (tree !== undefined) return { instanceId: tree.instanceId, method: "pid" };
    current = context.parent(current);
  }
  return undefined;
}

/** Catches a process that left its tree: a daemon whose parent ended. */
function ownerByCgroup(pid: number, context: AttributionContext): Owner | undefined {
  const group = context.cgroup(pid);
  if (group === null) return undefined;
  const [only, ...others] = context.trees.filter((tree) => tree.cgroup === group);
  if (only === undefined || others.length > 0) return undefined;
  return { instanceId: only.instanceId, method: "cgroup" };
}
