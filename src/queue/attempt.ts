import { CjmError, toError } from "../errors/index.ts";
import { BODY_LIMITS } from "../protocol/index.ts";
import { clearTimers } from "./cancel-phases.ts";
import { endOverdue, stopAttempt, timeOut } from "./cancellation.ts";
import { complete, fail } from "./endings.ts";
import type { ExecutableCall, ExecutionEvents } from "./executor.ts";
import type { JobEntry, RunningAttempt } from "./job.ts";
import type { RunLoop } from "./run-loop.ts";
import { boundedAccounts } from "./worker-accounts.ts";

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

function callOf({ spec, attempt, chunks }: JobEntry, gpuUuid: string | null): ExecutableCall {
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
    wantsChunks: chunks !== null,
  };
}

/**
 * Keeps a chunk that nobody reads for the job's result, which has the limits of any other answer.
 *
 * @throws {CjmError} `RESPONSE_TOO_LARGE`, which ends the stream and so the call.
 */
function collector(entry: JobEntry): (chunk: unknown) => void {
  let bytes = 0;
  return (chunk) => {
    bytes += Buffer.byteLength(JSON.stringify(chunk) ?? "null");
    if (bytes > BODY_LIMITS.bytes || entry.collected.length >= BODY_LIMITS.values) {
      throw new CjmError(
        "RESPONSE_TOO_LARGE",
        `The chunks of a stream that nobody reads have more than ${BODY_LIMITS.bytes} bytes or ${BODY_LIMITS.values} values; larger things are files`,
      );
    }
    entry.collected.push(chunk);
  };
}

function eventsOf(loop: RunLoop, entry: JobEntry, attempt: RunningAttempt): ExecutionEvents {
  const { timeoutMs } = entry.spec;
  const collect = collector(entry);
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
    account: boundedAccounts((eventType, payload) => {
      loop.run((unit) => {
        unit.jobEvent(entry, eventType, payload, { workerReported: true });
      });
    }),
    chunk: async (value) => {
      if (entry.chunks !== null) await entry.chunks.push(value);
      else collect(value);
    },
    measured: (peaks) => {
      attempt.peaks = peaks;
    },
  };
}
