import { toError } from "../errors/index.ts";

import { complete, fail } from "./endings.ts";
import type { ExecutionEvents } from "./executor.ts";
import type { JobEntry, RunningAttempt, StopReason } from "./job.ts";
import type { RunLoop } from "./run-loop.ts";

/** How much longer a call that shares its worker is left to stop by itself before all are ended. */
const SHARED_PATIENCE = 10;

/** Runs one admitted attempt to its end and hands the outcome to the run loop. */
export async function runAttempt(
  loop: RunLoop,
  entry: JobEntry,
  gpuUuid: string | null,
): Promise<void> {
  const { spec } = entry;
  const attempt: RunningAttempt = {
    abort: new AbortController(),
    startedMs: performance.now(),
    stop: null,
    timers: [],
    loadMs: null,
  };
  entry.attemptNow = attempt;
  entry.collected.length = 0;
  // A cancel may have come while the admission was being committed.
  if (entry.cancelPhase !== null) stopAttempt(loop, entry, "cancel");
  try {
    const outcome = await loop.options.executor.execute(
      {
        jobId: spec.id,
        instanceId: spec.instanceId,
        target: spec.target,
        kwargs: spec.kwargs,
        attempt: entry.attempt,
        gpuUuid,
        identity: {
          run_id: spec.runId,
          composition_id: spec.compositionId,
          node_id: spec.nodeId,
          actor: spec.actor,
          control: { ...spec.control },
        },
        ...(spec.timeoutMs !== null && { timeoutMs: spec.timeoutMs }),
      },
      eventsOf(loop, entry, attempt),
      attempt.abort.signal,
    );
    clearTimers(attempt);
    await complete(loop, entry, outcome);
  } catch (error) {
    clearTimers(attempt);
    if (entry.planned !== "running") throw toError(error);
    await fail(loop, entry, error);
  }
}

/**
 * Tells a running attempt to stop: first by asking, after the cancel timeout by ending its worker.
 * The first reason counts.
 */
export function stopAttempt(loop: RunLoop, entry: JobEntry, reason: StopReason): void {
  const attempt = entry.attemptNow;
  if (attempt === null || attempt.stop !== null) return;
  attempt.stop = reason;
  attempt.abort.abort();
  const { cancelTimeoutMs } = loop.options;
  attempt.timers.push(
    setTimeout(() => {
      if (!isShared(loop, entry)) force(loop, entry, attempt);
    }, cancelTimeoutMs),
    setTimeout(() => {
      force(loop, entry, attempt);
    }, cancelTimeoutMs * SHARED_PATIENCE),
  );
}

function force(loop: RunLoop, entry: JobEntry, attempt: RunningAttempt): void {
  if (entry.attemptNow !== attempt || entry.planned !== "running") return;
  clearTimers(attempt);
  const { executor } = loop.options;
  loop.run((unit) => {
    unit.jobEvent(entry, "cancel_phase_changed", { from: entry.cancelPhase, to: "force" });
    unit.updateJob(entry, { cancelPhase: "force" }, (job) => {
      job.cancelPhase = "force";
    });
    unit.after(() => {
      executor
        .end(entry.spec.instanceId, `did not end job ${entry.spec.id} when asked`)
        .catch((error: unknown) => {
          loop.reportFailure(error);
        });
    });
  });
}

function isShared(loop: RunLoop, entry: JobEntry): boolean {
  return loop.runningOn(entry.spec.instanceId) > 1;
}

function eventsOf(loop: RunLoop, entry: JobEntry, attempt: RunningAttempt): ExecutionEvents {
  const { spec } = entry;
  return {
    sent: ({ workerSessionId, loadMs }) => {
      entry.workerSessionId = workerSessionId;
      attempt.loadMs = loadMs;
      if (spec.timeoutMs === null) return;
      attempt.timers.push(
        setTimeout(() => {
          stopAttempt(loop, entry, "timeout");
        }, spec.timeoutMs),
      );
    },
    progress: (fraction, message) => {
      loop.progress(entry, fraction, message);
    },
    account: (eventType, payload) => {
      loop.run((unit) => {
        unit.jobEvent(entry, eventType, payload, { workerReported: true });
      });
    },
    chunk: async (value) => {
      if (entry.chunks !== null) await entry.chunks.push(value);
      else entry.collected.push(value);
    },
  };
}

function clearTimers(attempt: RunningAttempt): void {
  for (const timer of attempt.timers) clearTimeout(timer);
  attempt.timers = [];
}
