import type { JobStatus } from "../store/index.ts";
import { isTerminal, type JobEntry, requireStep, resultSize } from "./job.ts";

/** Results of what is over that are kept, in characters; the store has them all. */
export const RESULTS_IN_MEMORY = 64 * 1024 * 1024;

/** How many jobs are in each state; of those that are over, all since the host started. */
export type JobCounts = Readonly<Record<JobStatus, number>>;

/**
 * The jobs of this host: all that are not over, and the last that are.
 *
 * Keeps what would otherwise be searched for: how many are in each state, and what runs where.
 */
export class JobTable {
  readonly #entries = new Map<string, JobEntry>();
  readonly #running = new Map<string, Set<JobEntry>>();
  readonly #counts: Record<JobStatus, number> = {
    pending: 0,
    running: 0,
    completed: 0,
    failed: 0,
    cancelled: 0,
  };
  /** With the size of each result. */
  readonly #finished = new Map<JobEntry, number>();
  #resultSize = 0;
  readonly #history: number;

  /** `history`: jobs that are over and kept, fewer where their results are large. */
  constructor(history: number) {
    this.#history = history;
  }

  get counts(): JobCounts {
    return this.#counts;
  }

  get(id: string): JobEntry | undefined {
    return this.#entries.get(id);
  }

  values(): Iterable<JobEntry> {
    return this.#entries.values();
  }

  add(entry: JobEntry): void {
    this.#entries.set(entry.spec.id, entry);
    this.#counts[entry.status] += 1;
  }

  /** Takes back a job that could not be stored. */
  remove(entry: JobEntry): void {
    if (!this.#entries.delete(entry.spec.id)) return;
    this.#counts[entry.status] -= 1;
    this.#runningOn(entry).delete(entry);
  }

  /** The state that staged rows will commit. @throws {TypeError} for a step no job can take. */
  plan(entry: JobEntry, to: JobStatus): JobStatus {
    const from = entry.planned;
    requireStep(entry, to);
    entry.planned = to;
    if (to === "running") this.#runningOn(entry).add(entry);
    else if (from === "running") this.#runningOn(entry).delete(entry);
    return from;
  }

  /** The state that has been committed. */
  commit(entry: JobEntry, status: JobStatus): void {
    this.#counts[entry.status] -= 1;
    this.#counts[status] += 1;
    entry.status = status;
    if (!isTerminal(status)) return;
    const size = resultSize(entry);
    this.#finished.set(entry, size);
    this.#resultSize += size;
    for (const [oldest, itsSize] of this.#finished) {
      if (this.#finished.size <= this.#history && this.#resultSize <= RESULTS_IN_MEMORY) break;
      this.#finished.delete(oldest);
      this.#resultSize -= itsSize;
      this.#entries.delete(oldest.spec.id);
    }
  }

  /** Attempts that run on an instance now, or will when their admission is committed. */
  runningOn(instanceId: string): ReadonlySet<JobEntry> {
    return this.#running.get(instanceId) ?? NONE;
  }

  *running(): Iterable<JobEntry> {
    for (const entries of this.#running.values()) yield* entries;
  }

  /** Jobs that are over and still here, oldest first. */
  finished(): Iterable<JobEntry> {
    return this.#finished.keys();
  }

  #runningOn({ spec }: JobEntry): Set<JobEntry> {
    let entries = this.#running.get(spec.instanceId);
    if (entries === undefined) {
      entries = new Set();
      this.#running.set(spec.instanceId, entries);
    }
    return entries;
  }
}

const NONE: ReadonlySet<JobEntry> = new Set();
