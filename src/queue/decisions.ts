import { CjmError, toError } from "../errors/index.ts";
import { type Decision, describeBlock } from "../scheduler/index.ts";
import { runAttempt } from "./attempt.ts";
import { end, errorOf } from "./endings.ts";
import type { RunLoop } from "./run-loop.ts";
import type { Unit } from "./unit.ts";

type DecisionOf<T extends Decision["type"]> = Extract<Decision, { type: T }>;

/** Puts what the scheduler decided into the unit; it is carried out after the commit. */
export function decide(loop: RunLoop, decision: Decision, unit: Unit): void {
  switch (decision.type) {
    case "admit":
      admit(loop, decision, unit);
      return;
    case "block":
      block(loop, decision, unit);
      return;
    case "reject":
      reject(loop, decision, unit);
      return;
    case "evict":
      evict(loop, decision, unit);
      return;
    case "evict_refuted":
      refute(loop, decision, unit);
      return;
    case "respawn":
      endInstance(loop, decision.instanceId, decision.reason, unit);
      return;
    case "wake":
      loop.wakeAt(decision.at);
      return;
  }
}

function admit(loop: RunLoop, decision: DecisionOf<"admit">, unit: Unit): void {
  // Its row stays pending: the next host can resume it.
  if (loop.isPaused) return;
  const entry = loop.entry(decision.jobId);
  const from = loop.jobs.plan(entry, "running");
  const startedAt = new Date().toISOString();
  const attempt = entry.attempt + 1;
  unit.updateJob(entry, { status: "running", startedAt, attempt, blockReason: null }, (job) => {
    loop.jobs.commit(job, "running");
    job.startedAt = startedAt;
    job.attempt = attempt;
    job.blockReason = null;
  });
  unit.jobEvent(entry, "admission_decided", {
    exclusive: decision.exclusive,
    ...(decision.gpuUuid !== null && { gpu_uuid: decision.gpuUuid }),
    gpu_reserved_mb: decision.reservedMb,
    ...(decision.borrowedFrom !== null && { borrowed_from: decision.borrowedFrom }),
    lanes_in_use: decision.lanesInUse,
    stats_available: decision.statsAvailable,
  });
  unit.jobEvent(entry, "state_transition", { from, to: "running", attempt });
  unit.after(() => {
    loop.dispatch(() => runAttempt(loop, entry, decision.gpuUuid));
  });
}

function block(loop: RunLoop, { jobId, reason }: DecisionOf<"block">, unit: Unit): void {
  const entry = loop.entry(jobId);
  const to = describeBlock(reason);
  unit.jobEvent(entry, "block_reason_changed", { from: entry.blockReason, to, reason });
  unit.updateJob(entry, { blockReason: to }, (job) => {
    if (job.status === "pending") job.blockReason = to;
  });
}

function reject(loop: RunLoop, decision: DecisionOf<"reject">, unit: Unit): void {
  const entry = loop.entry(decision.jobId);
  const { shortfall, advice } = decision;
  const error = new CjmError(
    "VRAM_NEVER_FITS",
    `Job needs ${shortfall.needed} MB of ${shortfall.resource}, ${shortfall.available} MB can be had: ${advice}`,
    { resourceShortfall: shortfall },
  );
  end(loop, entry, { status: "failed", error: errorOf(entry, error) }, unit);
}

function evict(loop: RunLoop, decision: DecisionOf<"evict">, unit: Unit): void {
  const { instanceId, forJobId, level } = decision;
  unit.journal({
    eventType: "eviction_requested",
    capabilityInstanceId: instanceId,
    payload: { for_job: forJobId, level },
  });
  unit.after(() => {
    void release(loop, instanceId, level);
  });
}

/** Always answers the scheduler: a release that nobody hears of would hold up what waits for it. */
async function release(loop: RunLoop, instanceId: string, level: string): Promise<void> {
  const failure = await loop.options.executor.release(instanceId, level).then(
    () => null,
    (error: unknown) => toError(error).message,
  );
  loop.run((unit) => {
    unit.journal({
      eventType: failure === null ? "eviction_confirmed" : "eviction_refuted",
      capabilityInstanceId: instanceId,
      payload: { level, ...(failure !== null && { error: failure }) },
    });
    const replied = failure === null;
    loop.step({ type: "eviction_finished", now: loop.now(), instanceId, replied }, unit);
  });
}

/** What was reported and not seen; a worker that did not even report it has its row already. */
function refute(loop: RunLoop, decision: DecisionOf<"evict_refuted">, unit: Unit): void {
  const { instanceId, replied, expectedMb, seenMb } = decision;
  if (replied) {
    unit.journal({
      eventType: "eviction_refuted",
      capabilityInstanceId: instanceId,
      payload: { expected_mb: expectedMb, seen_mb: seenMb },
    });
  }
  const reason = replied
    ? "kept memory that it said it had released"
    : "did not release its memory when it was asked to";
  endInstance(loop, instanceId, reason, unit);
}

function endInstance(loop: RunLoop, instanceId: string, reason: string, unit: Unit): void {
  unit.after(() => {
    loop.options.executor.end(instanceId, reason).catch((error: unknown) => {
      loop.reportFailure(error);
    });
  });
}
