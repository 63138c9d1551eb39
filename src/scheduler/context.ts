import type { ResourceShortfall } from "../errors/index.ts";
import type { BlockReason } from "./block-reason.ts";
import type { Demand } from "./demand.ts";
import type { Instance, PendingJob, SchedulerState } from "./state.ts";
import type { Decision } from "./types.ts";

/** One step under way. */
export interface Context {
  readonly state: SchedulerState;
  readonly now: number;
  readonly decisions: Decision[];
  /** Places held before this step, by job: a job that still waits keeps its place. */
  readonly heldBefore: Map<string, string>;
  /** Whether a job that could go to any GPU already holds one in this step. */
  anywhereHeld: boolean;
}

/** A class head under examination. */
export interface Candidate {
  readonly job: PendingJob;
  readonly instance: Instance;
  readonly demand: Demand;
}

export type Verdict =
  | {
      readonly kind: "admit";
      readonly gpu: string | null;
      readonly usesGpu: boolean;
      readonly exclusive: boolean;
    }
  /** `parked`: nothing but a change of its own instance can help. */
  | { readonly kind: "block"; readonly reason: BlockReason; readonly parked?: boolean }
  | {
      readonly kind: "reject";
      readonly resource: ResourceShortfall["resource"];
      readonly neededMb: number;
      readonly availableMb: number;
    };

export const RAM = "RAM";
