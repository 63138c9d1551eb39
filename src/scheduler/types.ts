import type { ResourceShortfall } from "../errors/index.ts";
import type { BlockReason } from "./block-reason.ts";
import type { ResourceProfile } from "./profile.ts";

/** What to do with work that does not fit now: hold it, fail it, or start it unchecked. */
export type AdmissionMode = "wait" | "refuse" | "permissive";

export interface SchedulerConfig {
  /** Jobs in flight at most, over all instances. */
  readonly maxLanes: number;
  /** VRAM in MB kept free on every GPU. @default the larger of 512 and 5 % of the GPU */
  readonly vramMarginMb?: number | undefined;
  /** Host RAM in MB kept free. @default 512 */
  readonly ramMarginMb?: number | undefined;
  /** @default "wait" */
  readonly admission?: AdmissionMode | undefined;
  /** Later jobs that may start ahead of a job that holds a reservation. @default 32 */
  readonly maxPasses?: number | undefined;
  /** Below this much free disk, in MB, new work is refused and pending work waits. @default 0 */
  readonly minFreeDiskMb?: number | undefined;
  /** How long after its reply a release may take to show in the measurements. @default 5000 */
  readonly evictionTimeoutMs?: number | undefined;
  /** False: no profile is used, every job runs alone. @default true */
  readonly empiricalTracking?: boolean | undefined;
}

/**
 * The rules of the ladder that have a mutant. The product always runs with {@link DEFAULT_RULES};
 * the exhaustive search runs with one rule broken at a time to show that it would notice.
 */
export interface SchedulerRules {
  /** `joint`: promises count against the free memory. `apart`: ledger and free memory are tested separately. */
  readonly memoryTest: "joint" | "apart";
  /** Whether a resident that pending jobs want may be evicted. */
  readonly wantedResidents: "dear" | "untouchable";
  /** Whether passing a reservation is counted and bounded. */
  readonly passBound: boolean;
}

export const DEFAULT_RULES: SchedulerRules = {
  memoryTest: "joint",
  wantedResidents: "dear",
  passBound: true,
};

/** A job as the caller submits it. */
export interface JobRequest {
  readonly jobId: string;
  readonly instanceId: string;
  readonly capability: string;
  /** As made by `profileKey()`: it names the configuration, the input size and the GPU model. */
  readonly profileKey: string;
  /** Higher is more urgent. */
  readonly priority: number;
  /** Order among equal priorities, lower first; unique. The submit order, unless reordered. */
  readonly seq: number;
  /** A promise of the caller for a first run, in MB; the caller ends the job when it is exceeded. */
  readonly vramLimitMb?: number | undefined;
}

/**
 * `absent`: no process. `loading`: starting. `ready`: takes calls (awake or asleep).
 * `releasing`: giving memory back or ending; takes no calls.
 */
export type InstanceState = "absent" | "loading" | "ready" | "releasing";

export interface GpuSample {
  readonly uuid: string;
  readonly totalMb: number;
  readonly freeMb: number;
}

export interface InstanceSample {
  readonly instanceId: string;
  /** VRAM that the worker's process tree holds now. */
  readonly vramMb: number;
  readonly ramMb: number;
  /** Highest since the previous event, where it was sampled more often than events are sent. */
  readonly vramPeakMb?: number | undefined;
}

export type JobOutcome = "completed" | "failed" | "cancelled" | "out_of_memory" | "requeued";

/** Everything that the scheduler reacts to. `now` is milliseconds of one monotonic clock. */
export type SchedulerEvent =
  | { readonly type: "job_submitted"; readonly now: number; readonly job: JobRequest }
  /**
   * A running job has left its lane. A job that shall run again (`requeued`, or `out_of_memory` with
   * a retry) is submitted again by the caller when its delay is over.
   */
  | {
      readonly type: "job_finished";
      readonly now: number;
      readonly jobId: string;
      readonly outcome: JobOutcome;
    }
  /** A pending job was cancelled. */
  | { readonly type: "job_removed"; readonly now: number; readonly jobId: string }
  /** A pending job changes its place; what is not given stays. */
  | {
      readonly type: "job_reprioritized";
      readonly now: number;
      readonly jobId: string;
      readonly priority?: number | undefined;
      readonly seq?: number | undefined;
    }
  | {
      readonly type: "instance_changed";
      readonly now: number;
      readonly instanceId: string;
      readonly capability: string;
      readonly state: InstanceState;
      /** The GPU its worker was started with; null when it was started without one. */
      readonly gpuUuid: string | null;
      readonly maxConcurrent: number;
      /** Measured when the state was reached; null when unknown. */
      readonly observedVramMb: number | null;
      readonly observedRamMb: number | null;
    }
  | {
      readonly type: "telemetry";
      readonly now: number;
      /** When the sample was taken, on the clock of `now`. @default now */
      readonly takenAt?: number | undefined;
      /** Every GPU of the machine; null when there is no monitor or it is silent. */
      readonly gpus: readonly GpuSample[] | null;
      readonly ramFreeMb: number | null;
      readonly ramTotalMb?: number | null | undefined;
      readonly diskFreeMb: number | null;
      /** Instances that have a process; taken together with `gpus`. */
      readonly instances: readonly InstanceSample[];
    }
  | {
      readonly type: "profile_changed";
      readonly now: number;
      readonly key: string;
      readonly profile: ResourceProfile | null;
    }
  /** The answer to an `evict` decision. Must always come, unless the instance becomes `absent` first. */
  | {
      readonly type: "eviction_finished";
      readonly now: number;
      readonly instanceId: string;
      /** False: the worker did not answer, or answered with an error. */
      readonly replied: boolean;
    }
  | { readonly type: "tick"; readonly now: number };

/** `sleep` gives VRAM back and keeps the process; `unload` gives everything back. */
export type EvictionLevel = "sleep" | "unload";

export interface AdmitDecision {
  readonly type: "admit";
  readonly jobId: string;
  readonly instanceId: string;
  /** Where the instance must be, or be started; null: it needs no GPU, or none is known. */
  readonly gpuUuid: string | null;
  /** The job runs alone on its GPU (or, without a GPU, in its instance): its run is its measurement. */
  readonly exclusive: boolean;
  /** What this job adds to the reservation of its instance, in MB of VRAM. */
  readonly reservedMb: number;
  /** The measured key whose peak stands in for the missing one. */
  readonly borrowedFrom: string | null;
  readonly lanesInUse: number;
  /** Whether GPU measurements were there to decide by. */
  readonly statsAvailable: boolean;
}

export type Decision =
  | AdmitDecision
  /** Ask an idle instance to give memory back; answer with `eviction_finished`. */
  | {
      readonly type: "evict";
      readonly instanceId: string;
      readonly forJobId: string;
      readonly level: EvictionLevel;
    }
  /** A release that was reported but not seen, or never answered: end the worker. */
  | {
      readonly type: "evict_refuted";
      readonly instanceId: string;
      /** False: it did not answer, or answered with an error. */
      readonly replied: boolean;
      readonly expectedMb: number;
      readonly seenMb: number;
    }
  /**
   * End the worker of an idle instance; the next `admit` starts it, on the GPU it names.
   * `moved`: another GPU has room. `out_of_memory`: a process that ran out is not used again.
   */
  | {
      readonly type: "respawn";
      readonly instanceId: string;
      readonly reason: "moved" | "out_of_memory";
    }
  /** The job fails without running. */
  | {
      readonly type: "reject";
      readonly jobId: string;
      readonly shortfall: ResourceShortfall;
      readonly advice: string;
    }
  /** Why the head of a class waits has changed, or the job has become a head. */
  | { readonly type: "block"; readonly jobId: string; readonly reason: BlockReason }
  /** Send a `tick` at this time. */
  | { readonly type: "wake"; readonly at: number };
