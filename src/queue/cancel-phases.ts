import type { CancelPhase, JobEntry, RunningAttempt } from "./job.ts";
import type { Unit } from "./unit.ts";

/** Writes that a cancellation has gone one step further. */
export function enterPhase(entry: JobEntry, to: CancelPhase, unit: Unit): void {
  const from = entry.phasePlanned;
  entry.phasePlanned = to;
  unit.jobEvent(entry, "cancel_phase_changed", {
    from,
    to,
    ...(entry.attemptNow?.stop != null && { reason: entry.attemptNow.stop }),
  });
  unit.updateJob(entry, { cancelPhase: to }, (job) => {
    job.cancelPhase = to;
  });
}

/** The last phases of an attempt that was told to stop and is over now. */
export function endPhases(entry: JobEntry, unit: Unit): void {
  if (entry.phasePlanned === null || entry.phasePlanned === "completed") return;
  // Its worker was ended; the next call of the instance starts a new one.
  if (entry.phasePlanned === "force") enterPhase(entry, "reloading", unit);
  enterPhase(entry, "completed", unit);
}

export function clearTimers(attempt: RunningAttempt): void {
  for (const timer of attempt.timers) clearTimeout(timer);
  attempt.timers = [];
}
