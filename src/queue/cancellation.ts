import { clearTimers, enterPhase } from "./cancel-phases.ts";
import { cancelPending } from "./endings.ts";
import type { JobEntry, RunningAttempt, StopReason } from "./job.ts";
import type { RunLoop } from "./run-loop.ts";
import type { Unit } from "./unit.ts";

/** How much longer a call that shares its worker is left to stop by itself before all are ended. */
const SHARED_PATIENCE = 10;

/** Puts a job's cancel into the unit: a pending job ends in it, a running one is asked to. */
export function cancelJob(loop: RunLoop, entry: JobEntry, unit: Unit): void {
  if (cancelPending(loop, entry, unit) || entry.planned !== "running" || entry.isCancelled) return;
  entry.isCancelled = true;
  const cancelRequestedAt = new Date().toISOString();
  enterPhase(entry, "cooperative", unit);
  unit.updateJob(entry, { cancelRequestedAt }, (job) => {
    stopAttempt(loop, job, "cancel");
  });
}

/** Tells a running attempt that its time is over; what it answers in spite of that still counts. */
export function timeOut(loop: RunLoop, entry: JobEntry): void {
  loop.run((unit) => {
    if (entry.planned !== "running" || entry.isCancelled) return;
    enterPhase(entry, "cooperative", unit);
    unit.after(() => {
      stopAttempt(loop, entry, "timeout");
    });
  });
}

/** Ends an attempt that uses more than its caller allowed, at once and with its worker. */
export function stopOverLimit(loop: RunLoop, entry: JobEntry): void {
  const attempt = entry.attemptNow;
  if (attempt === null || attempt.stop !== null) return;
  attempt.stop = "limit";
  attempt.abort.abort();
  force(loop, entry, attempt);
}

/**
 * Tells a running attempt to stop: first by asking, after the cancel timeout by ending its worker.
 * The first reason counts.
 */
export function stopAttempt(loop: RunLoop, entry: JobEntry, reason: StopReason): void {
  const attempt = entry.attemptNow;
  if (attempt === null || attempt.stop !== null || entry.planned !== "running") return;
  attempt.stop = reason;
  attempt.abort.abort();
  const { cancelTimeoutMs } = loop.options;
  attempt.timers.push(
    setTimeout(() => {
      attempt.isOverdue = true;
      endOverdue(loop, entry.spec.instanceId);
    }, cancelTimeoutMs),
    setTimeout(() => {
      force(loop, entry, attempt);
    }, cancelTimeoutMs * SHARED_PATIENCE),
  );
}

/** Ends a worker whose calls were all told to stop long ago; one that still serves another is spared. */
export function endOverdue(loop: RunLoop, instanceId: string): void {
  const running = [...loop.jobs.runningOn(instanceId)];
  if (!running.every(({ attemptNow }) => attemptNow?.isOverdue === true)) return;
  for (const entry of running) {
    if (entry.attemptNow !== null) force(loop, entry, entry.attemptNow);
  }
}

function force(loop: RunLoop, entry: JobEntry, attempt: RunningAttempt): void {
  if (entry.attemptNow !== attempt || entry.planned !== "running") return;
  if (entry.phasePlanned === "force") return;
  clearTimers(attempt);
  const { instanceId, id } = entry.spec;
  loop.run((unit) => {
    enterPhase(entry, "force", unit);
    unit.after(() => {
      // It ended while this was being committed: its worker may serve another job by now.
      if (entry.attemptNow !== attempt || entry.planned !== "running") return;
      loop.options.executor
        .end(instanceId, `did not end job ${id} when asked`)
        .catch((error: unknown) => {
          loop.reportFailure(error);
        });
    });
  });
}
