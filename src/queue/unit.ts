import type { JobChanges, JournalEntry, StoreWrite } from "../store/index.ts";
import type { JobEntry } from "./job.ts";

/**
 * One transition with all its rows: committed together or not at all. Effects run after the commit.
 */
export class Unit {
  readonly writes: StoreWrite[] = [];
  readonly #effects: (() => void)[] = [];

  write(...writes: readonly StoreWrite[]): void {
    this.writes.push(...writes);
  }

  journal(event: JournalEntry): void {
    this.writes.push({ op: "journal.append", event });
  }

  /** A journal row with the identity of a job. */
  jobEvent(
    entry: JobEntry,
    eventType: string,
    payload: Readonly<Record<string, unknown>>,
    more: Partial<JournalEntry> = {},
  ): void {
    const { spec } = entry;
    this.journal({
      eventType,
      jobId: spec.id,
      runId: spec.runId,
      compositionId: spec.compositionId,
      nodeId: spec.nodeId,
      capabilityInstanceId: spec.instanceId,
      capabilityName: spec.capability,
      configHash: spec.configHash,
      taskName: spec.target.task,
      method: spec.target.method,
      workerSessionId: entry.workerSessionId,
      actor: spec.actor,
      payload,
      ...more,
    });
  }

  /** Changes columns of a job's row; `apply` changes the job in memory when they are committed. */
  updateJob(entry: JobEntry, changes: JobChanges, apply: (entry: JobEntry) => void): void {
    this.writes.push({ op: "job.update", id: entry.spec.id, changes });
    this.after(() => {
      apply(entry);
    });
  }

  after(effect: () => void): void {
    this.#effects.push(effect);
  }

  runEffects(): void {
    for (const effect of this.#effects) effect();
  }
}
