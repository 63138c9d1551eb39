import type { JobChanges, JournalEntry, NewJob, StoreWrite } from "../store/index.ts";
import type { JobEntry } from "./job.ts";

/**
 * One transition with all its rows: committed together or not at all. Effects run after the commit.
 */
export class Unit {
  readonly writes: StoreWrite[] = [];
  readonly #effects: (() => void)[] = [];
  /** Where the rows are that this unit inserts. */
  readonly #inserted = new Map<string, number>();

  write(write: StoreWrite): void {
    this.writes.push(write);
  }

  insertJob(job: NewJob): void {
    this.#inserted.set(job.id, this.writes.length);
    this.writes.push({ op: "job.insert", job });
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
    const { id } = entry.spec;
    const position = this.#inserted.get(id);
    const insert = position === undefined ? undefined : this.writes[position];
    // Most jobs are admitted in the unit that submits them: that is one row and one statement.
    if (position !== undefined && insert?.op === "job.insert") {
      this.writes[position] = { op: "job.insert", job: { ...insert.job, ...changes } };
    } else {
      this.writes.push({ op: "job.update", id, changes });
    }
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
