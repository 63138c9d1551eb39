import type { JobError } from "../errors/index.ts";
import { BODY_LIMITS } from "../protocol/index.ts";
import type { JobRecord, JobStatus, NewJob, StoredValue } from "../store/index.ts";
import type { ChunkChannel } from "./chunk-channel.ts";
import type { CallTarget, ExecutionOutcome } from "./executor.ts";

/** The whole life cycle on one screen. */
const NEXT: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
  // Failed without running: it can never fit.
  pending: ["running", "failed", "cancelled"],
  // Completed wins over a cancel that came too late; pending again for a retry.
  running: ["completed", "failed", "cancelled", "pending"],
  completed: [],
  failed: [],
  cancelled: [],
};

const CANCEL_PHASES = ["cooperative", "force", "reloading", "completed"] as const;
export type CancelPhase = (typeof CANCEL_PHASES)[number];

/** What a job is asked to do; fixed when it is submitted. */
export interface JobSpec {
  readonly id: string;
  readonly instanceId: string;
  readonly capability: string;
  readonly target: CallTarget;
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly control: Readonly<Record<string, unknown>>;
  readonly maxRetries: number;
  readonly timeoutMs: number | null;
  readonly compositionId: string | null;
  readonly nodeId: string | null;
  readonly itemIndex: number | null;
  readonly runId: string | null;
  readonly actor: string | null;
  readonly configHash: string;
  readonly codeHash: string | null;
  readonly profileKey: string;
  readonly inputBucket: number | null;
  readonly vramLimitMb: number | null;
  readonly submittedAt: string;
}

/** A job as callers see it: what is committed, plus the last progress. */
export interface JobView extends JobSpec {
  readonly status: JobStatus;
  readonly priority: number;
  readonly attempt: number;
  readonly retryCount: number;
  readonly startedAt: string | null;
  readonly completedAt: string | null;
  readonly progress: number | null;
  readonly statusMessage: string;
  readonly blockReason: string | null;
  readonly cancelPhase: CancelPhase | null;
  readonly workerSessionId: string | null;
  readonly result: unknown;
  readonly error: JobError | null;
}

/** Why a running call was told to stop; decides how its failure is read. */
export type StopReason = "cancel" | "timeout" | "limit";

/** The attempt that runs now. */
export interface RunningAttempt {
  readonly abort: AbortController;
  readonly startedMs: number;
  stop: StopReason | null;
  /** It was told to stop and did not; its worker is spared while it serves others too. */
  isOverdue: boolean;
  timers: NodeJS.Timeout[];
  loadMs: number | null;
  /** What a failed attempt was measured to use. */
  peaks: ExecutionOutcome["peaks"] | null;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

/** The run loop's own record of a job; nobody else changes it. */
export interface JobEntry extends Mutable<Omit<JobView, keyof JobSpec>> {
  readonly spec: JobSpec;
  /** Order among equal priorities. */
  readonly seq: number;
  /** Status that staged units will commit; `status` follows when they have. */
  planned: JobStatus;
  /** Its cancel is staged or committed. */
  isCancelled: boolean;
  /** Phase that staged rows will commit. */
  phasePlanned: CancelPhase | null;
  attemptNow: RunningAttempt | null;
  /** Pending for a retry and not yet given back to the scheduler. */
  retryTimer: NodeJS.Timeout | null;
  /** What the result is stored as, from when it is known until the job is settled. */
  stored: StoredValue | null;
  /** Under which the result may be used again; null where it may not. */
  readonly cacheKey: string | null;
  readonly chunks: ChunkChannel | null;
  readonly collected: unknown[];
  readonly done: PromiseWithResolvers<void>;
}

export function newEntry(
  spec: JobSpec,
  options: {
    readonly priority: number;
    readonly seq: number;
    readonly chunks: ChunkChannel | null;
    readonly cacheKey?: string | null;
  },
): JobEntry {
  return {
    spec,
    ...options,
    cacheKey: options.cacheKey ?? null,
    stored: null,
    status: "pending",
    planned: "pending",
    isCancelled: false,
    phasePlanned: null,
    attempt: 0,
    retryCount: 0,
    startedAt: null,
    completedAt: null,
    progress: null,
    statusMessage: "",
    blockReason: null,
    cancelPhase: null,
    workerSessionId: null,
    result: undefined,
    error: null,
    attemptNow: null,
    retryTimer: null,
    collected: [],
    done: Promise.withResolvers<void>(),
  };
}

/** @throws {TypeError} for a step the life cycle does not have: a bug of the run loop. */
export function requireStep({ spec, planned }: JobEntry, to: JobStatus): void {
  if (NEXT[planned].includes(to)) return;
  throw new TypeError(`Job ${spec.id} cannot go from ${planned} to ${to}`);
}

export function isTerminal(status: JobStatus): boolean {
  return NEXT[status].length === 0;
}

export function viewOf(entry: JobEntry): JobView {
  const { spec, ...rest } = entry;
  return {
    ...spec,
    status: rest.status,
    priority: rest.priority,
    attempt: rest.attempt,
    retryCount: rest.retryCount,
    startedAt: rest.startedAt,
    completedAt: rest.completedAt,
    progress: rest.progress,
    statusMessage: rest.statusMessage,
    blockReason: rest.blockReason,
    cancelPhase: rest.cancelPhase,
    workerSessionId: rest.workerSessionId,
    // Known before the commit, shown after it.
    result: rest.status === "completed" ? rest.result : undefined,
    error: isTerminal(rest.status) ? rest.error : null,
  };
}

export function toNewJob({ spec, priority }: JobEntry): NewJob {
  return {
    id: spec.id,
    capabilityInstanceId: spec.instanceId,
    capabilityName: spec.capability,
    action: spec.target.action ?? null,
    taskName: spec.target.task ?? null,
    method: spec.target.method ?? null,
    kwargs: spec.kwargs,
    control: spec.control,
    priority,
    status: "pending",
    submittedAt: spec.submittedAt,
    maxRetries: spec.maxRetries,
    timeoutMs: spec.timeoutMs,
    compositionId: spec.compositionId,
    nodeId: spec.nodeId,
    itemIndex: spec.itemIndex,
    runId: spec.runId,
    actor: spec.actor,
    configHash: spec.configHash,
    profileKey: spec.profileKey,
    inputBucket: spec.inputBucket,
    vramLimitMb: spec.vramLimitMb,
  };
}

/** Characters, or bytes, that a result takes at most. */
export function resultSize({ stored }: Pick<JobEntry, "stored">): number {
  if (stored === null) return 0;
  return stored.kind === "inline" ? stored.json.length : BODY_LIMITS.bytes;
}

/** The view of a job that is only in the store. */
export function viewOfRecord(record: JobRecord, result: unknown): JobView {
  return {
    id: record.id,
    instanceId: record.capabilityInstanceId,
    capability: record.capabilityName ?? "",
    target: {
      action: record.action ?? undefined,
      task: record.taskName ?? undefined,
      method: record.method ?? undefined,
    },
    kwargs: record.kwargs,
    control: record.control,
    maxRetries: record.maxRetries,
    timeoutMs: record.timeoutMs,
    compositionId: record.compositionId,
    nodeId: record.nodeId,
    itemIndex: record.itemIndex,
    runId: record.runId,
    actor: record.actor,
    configHash: record.configHash ?? "",
    codeHash: null,
    profileKey: record.profileKey ?? "",
    inputBucket: record.inputBucket,
    vramLimitMb: record.vramLimitMb,
    submittedAt: record.submittedAt,
    status: record.status,
    priority: record.priority,
    attempt: record.attempt,
    retryCount: record.retryCount,
    startedAt: record.startedAt,
    completedAt: record.completedAt,
    progress: record.progress,
    statusMessage: record.statusMessage ?? "",
    blockReason: record.blockReason,
    cancelPhase: phaseOf(record.cancelPhase),
    workerSessionId: record.workerSessionId,
    result,
    error: record.error,
  };
}

function phaseOf(stored: string | null): CancelPhase | null {
  return CANCEL_PHASES.find((phase) => phase === stored) ?? null;
}
