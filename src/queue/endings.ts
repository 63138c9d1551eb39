import { CjmError, type JobError, toJobError } from "../errors/index.ts";
import { decideRetry, type JobOutcome } from "../scheduler/index.ts";
import type { JobStatus, StoredValue } from "../store/index.ts";
import type { ExecutionOutcome } from "./executor.ts";
import { endPhases } from "./cancel-phases.ts";
import type { JobEntry } from "./job.ts";
import type { RunLoop } from "./run-loop.ts";
import { terminalSnapshot } from "./snapshot.ts";
import type { Unit } from "./unit.ts";

/** How a job ends. */
export interface Ending {
  readonly status: Extract<JobStatus, "completed" | "failed" | "cancelled">;
  readonly result?: unknown;
  readonly stored?: StoredValue;
  readonly error?: JobError;
}

/** A running attempt gave its result. */
export async function complete(
  loop: RunLoop,
  entry: JobEntry,
  outcome: ExecutionOutcome,
): Promise<void> {
  const isCollected = entry.chunks === null && entry.collected.length > 0;
  const result = isCollected ? entry.collected : outcome.result;
  const stored = await loop.options.results.store(result);
  entry.stored = stored;
  await loop.transact((unit) => {
    learn(loop, entry, outcome, unit);
    leaveLane(loop, entry, "completed", unit);
    end(loop, entry, { status: "completed", result, stored }, unit);
  });
}

/** A running attempt ended without a result: cancelled, to be repeated, or failed. */
export async function fail(loop: RunLoop, entry: JobEntry, thrown: unknown): Promise<void> {
  const retry = retryOf(loop, entry, thrown);
  if (retry.retry && retry.restartWorker && entry.attemptNow?.stop !== "cancel") {
    await loop.options.executor.end(entry.spec.instanceId, "restarted for a retry");
  }
  // Only now: a cancel may have come while the worker was being ended.
  const error = errorOf(entry, thrown);
  const isOutOfMemory = error.category === "resource";
  await loop.transact((unit) => {
    if (entry.isCancelled) {
      end(loop, entry, { status: "cancelled", error: cancelledError(entry) }, unit);
      leaveLane(loop, entry, "cancelled", unit);
      return;
    }
    if (isOutOfMemory) learn(loop, entry, null, unit);
    // Its composition may have failed while the worker was being ended.
    const isRepeated = retry.retry && !loop.isHalted(entry);
    const left = isRepeated ? "requeued" : "failed";
    if (isRepeated) requeue(loop, entry, { error, ...retry }, unit);
    else end(loop, entry, { status: "failed", error }, unit);
    // Last: what the failure halts must not take the lane that it frees.
    leaveLane(loop, entry, isOutOfMemory ? "out_of_memory" : left, unit);
  });
}

/** Cancels a job that does not run. False if it runs or is over. */
export function cancelPending(loop: RunLoop, entry: JobEntry, unit: Unit): boolean {
  if (entry.planned !== "pending") return false;
  if (entry.retryTimer !== null) clearTimeout(entry.retryTimer);
  entry.retryTimer = null;
  entry.isCancelled = true;
  // Changes nothing for one that waits for its retry.
  loop.step({ type: "job_removed", now: loop.now(), jobId: entry.spec.id }, unit);
  end(loop, entry, { status: "cancelled", error: cancelledError(entry) }, unit);
  return true;
}

/** Writes the terminal rows of a job and tells its composition. */
export function end(loop: RunLoop, entry: JobEntry, ending: Ending, unit: Unit): void {
  const { status, stored, error = null } = ending;
  const from = loop.jobs.plan(entry, status);
  const completedAt = new Date().toISOString();
  entry.result = ending.result;
  entry.error = error;
  endPhases(entry, unit);
  unit.jobEvent(entry, "state_transition", {
    from,
    to: status,
    job_snapshot: terminalSnapshot(entry, status, completedAt),
  });
  unit.updateJob(
    entry,
    {
      status,
      completedAt,
      blockReason: null,
      error,
      progress: entry.progress,
      statusMessage: entry.statusMessage,
      workerSessionId: entry.workerSessionId,
      ...(stored !== undefined && { result: stored }),
    },
    (job) => {
      loop.jobs.commit(job, status);
      job.completedAt = completedAt;
      job.blockReason = null;
    },
  );
  loop.memberEnded(entry, unit);
  unit.after(() => {
    loop.settle(entry);
  });
}

/** The failure as it is stored and announced. */
export function errorOf(entry: JobEntry, thrown: unknown): JobError {
  const { spec } = entry;
  const stop = entry.attemptNow?.stop;
  const context = { capabilityName: spec.capability, capabilityInstanceId: spec.instanceId };
  if (stop === "cancel") return cancelledError(entry);
  if (stop === "limit") {
    const message = `${spec.capability} used more than the ${spec.vramLimitMb} MB of VRAM it was given`;
    return toJobError(new CjmError("RESOURCE_LIMIT_EXCEEDED", message, { cause: thrown }), context);
  }
  if (stop === "timeout") {
    const message = `${spec.capability} was not finished after ${spec.timeoutMs} ms`;
    return toJobError(new CjmError("CAPABILITY_TIMEOUT", message, { cause: thrown }), context);
  }
  const known = thrown instanceof CjmError ? thrown.details["jobError"] : undefined;
  // The worker's own account of its failure says more than a copy of it made here.
  return { ...toJobError(thrown, context), ...(isJobError(known) ? known : {}) };
}

type Retry = ReturnType<typeof decideRetry> & { readonly isCounted: boolean };

function retryOf(loop: RunLoop, entry: JobEntry, thrown: unknown): Retry {
  // Nobody waits for its result any more.
  if (loop.isHalted(entry)) return { retry: false, isCounted: true };
  // A reader cannot take back what it has read.
  if (entry.chunks?.hasBegun === true) return { retry: false, isCounted: true };
  // Its worker was ended for another job's sake: that says nothing about this one.
  if (isEndedByHost(thrown) && entry.attemptNow?.stop == null) {
    return { retry: true, delayMs: 0, restartWorker: false, evict: false, isCounted: false };
  }
  // It would exceed the same limit again.
  if (entry.attemptNow?.stop === "limit") return { retry: false, isCounted: true };
  const error = errorOf(entry, thrown);
  const decision = decideRetry({
    category: error.category,
    code: error.code,
    attempt: entry.retryCount + 1,
    maxRetries: entry.spec.maxRetries,
    workerKilled: error.code === "WORKER_EXITED" || error.code === "WORKER_OOM",
    retryAfterSeconds: error.retry_after_seconds,
    random: Math.random(),
  });
  return { ...decision, isCounted: true };
}

function requeue(
  loop: RunLoop,
  entry: JobEntry,
  retry: { readonly error: JobError; readonly delayMs: number; readonly isCounted: boolean },
  unit: Unit,
): void {
  const { error, delayMs } = retry;
  const from = loop.jobs.plan(entry, "pending");
  const loadMs = entry.attemptNow?.loadMs ?? null;
  endPhases(entry, unit);
  entry.phasePlanned = null;
  const retryCount = entry.retryCount + (retry.isCounted ? 1 : 0);
  unit.jobEvent(entry, "retry_started", {
    attempt: entry.attempt,
    exception_repr: error.original_exc_repr,
    exception_category: error.category,
    code: error.code,
    delay_ms: delayMs,
    load_ms: loadMs,
  });
  unit.jobEvent(entry, "state_transition", { from, to: "pending" });
  unit.updateJob(entry, { status: "pending", retryCount, cancelPhase: null }, (job) => {
    loop.jobs.commit(job, "pending");
    job.retryCount = retryCount;
    job.cancelPhase = null;
    job.attemptNow = null;
  });
  unit.after(() => {
    // Cancelled while the rows were committed, or nothing is started any more.
    if (entry.planned !== "pending" || loop.isClosed) return;
    entry.retryTimer = setTimeout(() => {
      entry.retryTimer = null;
      loop.run((later) => {
        loop.enqueue(entry, later);
      });
    }, delayMs);
  });
}

/** Adds what the attempt was measured to need to its profile. */
function learn(loop: RunLoop, entry: JobEntry, outcome: ExecutionOutcome | null, unit: Unit): void {
  const learned = loop.options.profiles.fold(entry, outcome);
  if (learned === undefined) return;
  const { key, profile, record } = learned;
  unit.write({ op: "profile.put", profile: record });
  loop.step({ type: "profile_changed", now: loop.now(), key, profile }, unit);
}

function leaveLane(loop: RunLoop, entry: JobEntry, outcome: JobOutcome, unit: Unit): void {
  loop.step({ type: "job_finished", now: loop.now(), jobId: entry.spec.id, outcome }, unit);
}

function isJobError(value: unknown): value is JobError {
  return typeof value === "object" && value !== null && "category" in value && "code" in value;
}

function isEndedByHost(thrown: unknown): boolean {
  return (
    thrown instanceof CjmError &&
    thrown.code === "WORKER_EXITED" &&
    thrown.details["isEndedByHost"] === true
  );
}

function cancelledError({ spec }: JobEntry): JobError {
  return toJobError(new CjmError("CAPABILITY_CANCELLED", `Job ${spec.id} was cancelled`), {
    capabilityName: spec.capability,
    capabilityInstanceId: spec.instanceId,
    tracebackPolicy: "repr_only",
  });
}
