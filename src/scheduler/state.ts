import type { HeapEntry } from "./heap.ts";
import type { BlockReason } from "./block-reason.ts";
import { DEFAULT_RULES, type AdmissionMode, type SchedulerConfig } from "./types.ts";
import type { EvictionLevel, InstanceState, JobRequest, SchedulerRules } from "./types.ts";
import type { Demand } from "./demand.ts";
import type { ResourceProfile } from "./profile.ts";

/** Stands for the GPU of a machine that has no monitor: GPU jobs run alone on it. */
export const UNKNOWN_GPU = "";

/**
 * Everything the scheduler knows: plain data, owned by one caller, changed in place by `step`.
 * Read it through the queries; its fields are not a contract.
 */
export interface SchedulerState {
  readonly config: ResolvedConfig;
  readonly rules: SchedulerRules;
  readonly pending: Map<string, PendingJob>;
  readonly running: Map<string, RunningJob>;
  readonly instances: Map<string, Instance>;
  /** Instances that have a process or a running job. */
  readonly present: Set<string>;
  readonly gpus: Map<string, Gpu>;
  /** GPUs by rising `availableMb`. */
  readonly gpuOrder: Gpu[];
  /** GPUs on which idle residents hold memory that could be asked back. */
  readonly evictableGpus: Set<string>;
  readonly lines: Map<string, Line>;
  readonly classes: Map<string, JobClass>;
  /** Classes whose head is examined in the next step. */
  readonly awake: Set<string>;
  /** Classes that got a new head, or woke up, since a step last looked. */
  readonly fresh: Set<string>;
  readonly profiles: Map<string, ResourceProfile>;
  /** Keys of one capability, for borrowing and to know whether it uses a GPU. */
  readonly keysOf: Map<string, Set<string>>;
  /** Who holds which place, by place: a GPU's uuid, `RAM`, or an instance's id. */
  readonly holds: Map<string, Hold>;
  readonly host: Host;
}

export interface ResolvedConfig {
  readonly maxLanes: number;
  readonly vramMarginMb: number | null;
  readonly ramMarginMb: number;
  readonly admission: AdmissionMode;
  readonly maxPasses: number;
  readonly minFreeDiskMb: number;
  readonly evictionTimeoutMs: number;
  readonly empiricalTracking: boolean;
}

export interface Host {
  /** Whether the last telemetry event had GPU numbers. */
  gpusLive: boolean;
  ramFreeMb: number | null;
  ramTotalMb: number | null;
  diskFreeMb: number | null;
  /** Sum over instances of RAM promised and not yet used. */
  ramPromisedMb: number;
  /** RAM of workers that have ended since the last sample. */
  ramLeavingMb: number;
  largestGpuMb: number;
  /** Set by whatever may let a job start that could not before; read at the end of a step. */
  changed: boolean;
  /** Counts changes of what demands are computed from. */
  knowledge: number;
}

export interface PendingJob {
  request: JobRequest;
  lineId: string;
  /** How often a later job started ahead while this one held a place. */
  passes: number;
  reason: BlockReason | null;
}

export interface RunningJob {
  readonly request: JobRequest;
  readonly startedAt: number;
  /** Null: it uses no GPU. */
  readonly gpu: string | null;
  readonly exclusive: boolean;
  readonly vramMb: number;
  readonly ramMb: number;
  /** 95th percentile of loading (when it had to load) plus running; null without samples. */
  readonly expectedMs: number | null;
}

/** Jobs of one instance that have the same key, priority and limit. */
export interface Line {
  readonly id: string;
  readonly instanceId: string;
  readonly request: JobRequest;
  readonly heap: HeapEntry[];
  size: number;
  classId: string;
  headRank: number;
  /** The rank it stands with in the heap of its class. */
  pushedRank: number;
}

/**
 * Lines that wait for the same thing: one line, or, while their instances have no process, all lines
 * of one key, priority and limit. Only the head of a class is ever examined.
 */
export interface JobClass {
  readonly id: string;
  readonly priority: number;
  readonly heap: HeapEntry[];
  size: number;
  /** What its members need, as far as was known at `knowledge`. */
  demand: Demand | null;
  knowledge: number;
}

export interface MemoryUse {
  /** From the last telemetry event, taken together with the free memory of the place. */
  sampledMb: number;
  /** The latest measurement from any source. */
  measuredMb: number;
  /** Peak of the set of jobs that run in the instance. */
  admittedMb: number;
  /** What the place must count on: `max(measured now, peak of the set of jobs admitted into it)`. */
  reservedMb: number;
  /** Held until a sample shows what the jobs that ended have left behind. */
  floorMb: number;
}

export interface Eviction {
  readonly level: EvictionLevel;
  readonly forJobId: string;
  readonly memory: "vram" | "ram";
  /** What its release should free. */
  readonly expectedMb: number;
  readonly sampledBeforeMb: number;
  repliedAt: number | null;
  refuted: boolean;
}

export interface Instance {
  readonly id: string;
  capability: string;
  state: InstanceState;
  gpu: string | null;
  maxConcurrent: number;
  readonly running: Set<string>;
  /** The job that must be alone in it. */
  exclusiveJob: string | null;
  readonly vram: MemoryUse;
  readonly ram: MemoryUse;
  /** VRAM held when it became ready, before any job: shared by all jobs of a set. */
  baseVramMb: number;
  /** Highest VRAM seen while this many jobs ran, by number of jobs. */
  readonly concurrentVramMb: number[];
  floorSince: number;
  idleSince: number;
  eviction: Eviction | null;
  /** It has given its VRAM back and keeps its process. */
  asleep: boolean;
  /** It saw a GPU out of memory: no new job, ended when idle. */
  tainted: boolean;
  /** Measured time to load; null without a measurement. */
  loadMs: number | null;
  readonly lines: Set<string>;
}

export interface Gpu {
  readonly uuid: string;
  totalMb: number;
  freeMb: number;
  marginMb: number;
  /** Held by workers that have ended since the last sample, and still counted as used in it. */
  leavingMb: number;
  /** Free now, less what our instances are promised and have not used yet, less the margin. */
  availableMb: number;
  readonly instances: Set<string>;
  /** Jobs that use it now. */
  readonly running: Set<string>;
  exclusiveJob: string | null;
  /** False once a telemetry event no longer lists it. */
  present: boolean;
}

/** A job's reservation of a place it waits for. */
export interface Hold {
  readonly jobId: string;
  /** When the place is expected to be free enough; infinite when that is unknown. */
  readonly at: number;
  /** What is left at that time beside the job; negative when nothing is. */
  readonly extraMb: number;
  /** Only keeps memory aside for a job that waits elsewhere: starts beside it are not passes. */
  readonly aside?: boolean;
}

/** A scheduler that knows nothing yet. */
export function createScheduler(
  config: SchedulerConfig,
  rules: SchedulerRules = DEFAULT_RULES,
): SchedulerState {
  return {
    config: resolveConfig(config),
    rules,
    pending: new Map(),
    running: new Map(),
    instances: new Map(),
    present: new Set(),
    gpus: new Map(),
    gpuOrder: [],
    evictableGpus: new Set(),
    lines: new Map(),
    classes: new Map(),
    awake: new Set(),
    fresh: new Set(),
    profiles: new Map(),
    keysOf: new Map(),
    holds: new Map(),
    host: {
      gpusLive: false,
      ramFreeMb: null,
      ramTotalMb: null,
      diskFreeMb: null,
      ramPromisedMb: 0,
      ramLeavingMb: 0,
      largestGpuMb: 0,
      changed: false,
      knowledge: 0,
    },
  };
}

function resolveConfig(config: SchedulerConfig): ResolvedConfig {
  return {
    maxLanes: config.maxLanes,
    vramMarginMb: config.vramMarginMb ?? null,
    ramMarginMb: config.ramMarginMb ?? 512,
    admission: config.admission ?? "wait",
    maxPasses: config.maxPasses ?? 32,
    minFreeDiskMb: config.minFreeDiskMb ?? 0,
    evictionTimeoutMs: config.evictionTimeoutMs ?? 5000,
    empiricalTracking: config.empiricalTracking ?? true,
  };
}
