import { toError } from "../errors/index.ts";
import { clearTimers } from "./cancel-phases.ts";
import { endOverdue, stopAttempt, timeOut } from "./cancellation.ts";
import { complete, fail } from "./endings.ts";
import type { ExecutableCall, ExecutionEvents } from "./executor.ts";
import type { JobEntry, RunningAttempt } from "./job.ts";
import type { RunLoop } from "./run-loop.ts";

/** Runs one admitted attempt to its end and hands the outcome to the run loop. */
export async function runAttempt(
  loop: RunLoop,
  entry: JobEntry,
  gpuUuid: string | null,
): Promise<void> {
  const attempt: RunningAttempt = {
    abort: new AbortController(),
    startedMs: performance.now(),
    stop: null,
    isOverdue: false,
    timers: [],
    loadMs: null,
    peaks: null,
  };
  entry.attemptNow = attempt;
  entry.collected.length = 0;
  // A cancel may have come while the admission was being committed.
  if (entry.isCancelled) stopAttempt(loop, entry, "cancel");
  try {
    const outcome = await loop.options.executor.execute(
      callOf(entry, gpuUuid),
      eventsOf(loop, entry, attempt),
      attempt.abort.signal,
    );
    clearTimers(attempt);
    await complete(loop, entry, outcome);
  } catch (error) {
    clearTimers(attempt);
    if (entry.planned !== "running") throw toError(error);
    // Its worker ended with the host: the row stays as it is, for the next host.
    if (!loop.isClosed) await fail(loop, entry, error);
  } finally {
    endOverdue(loop, entry.spec.instanceId);
  }
}

function callOf({ spec, attempt }: JobEntry, gpuUuid: string | null): ExecutableCall {
  return {
    jobId: spec.id,
    instanceId: spec.instanceId,
    target: spec.target,
    kwargs: spec.kwargs,
    attempt,
    gpuUuid,
    identity: {
      run_id: spec.runId,
      composition_id: spec.compositionId,
      node_id: spec.nodeId,
      actor: spec.actor,
      control: { ...spec.control },
    },
    ...(spec.timeoutMs !== null && { timeoutMs: spec.timeoutMs }),
  };
}

function eventsOf(loop: RunLoop, entry: JobEntry, attempt: RunningAttempt): ExecutionEvents {
  const { timeoutMs } = entry.spec;
  return {
    sent: ({ workerSessionId, loadMs }) => {
      entry.workerSessionId = workerSessionId;
      attempt.loadMs = loadMs;
      if (timeoutMs === null || attempt.stop !== null) return;
      attempt.timers.push(
        setTimeout(() => {
          timeOut(loop, entry);
        }, timeoutMs),
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
    measured: (peaks) => {
      attempt.peaks = peaks;
    },
  };
}
