import { classHead, isBefore } from "./classes.ts";
import type { JobClass, PendingJob, SchedulerState } from "./state.ts";

interface Entry {
  readonly jobClass: JobClass;
  readonly job: PendingJob;
}

/** The awake classes in the order of their heads; each is taken once, unless its head leaves. */
export class Agenda {
  readonly #state: SchedulerState;
  readonly #done = new Set<PendingJob>();
  /** Last first, so that taking the next one is cheap. */
  readonly #entries: Entry[] = [];

  constructor(state: SchedulerState) {
    this.#state = state;
    for (const id of state.awake) {
      const entry = this.#entryOf(id);
      if (entry !== null) this.#entries.push(entry);
    }
    this.#entries.sort(({ job: a }, { job: b }) => (isBefore(a.request, b.request) ? 1 : -1));
    state.fresh.clear();
  }

  /** Takes in the new heads of classes that changed since the last call. */
  addFresh(): void {
    for (const id of this.#state.fresh) {
      const entry = this.#entryOf(id);
      if (entry !== null) this.#insert(entry);
    }
    this.#state.fresh.clear();
  }

  take(): Entry | null {
    for (let next = this.#entries.pop(); next !== undefined; next = this.#entries.pop()) {
      if (this.#done.has(next.job) || classHead(this.#state, next.jobClass) !== next.job) continue;
      this.#done.add(next.job);
      return next;
    }
    return null;
  }

  #entryOf(classId: string): Entry | null {
    const jobClass = this.#state.classes.get(classId);
    const job = jobClass === undefined ? undefined : classHead(this.#state, jobClass);
    if (jobClass === undefined || job === undefined || this.#done.has(job)) return null;
    return { jobClass, job };
  }

  #insert(entry: Entry): void {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      const other = this.#entries[middle];
      if (other !== undefined && isBefore(entry.job.request, other.job.request)) low = middle + 1;
      else high = middle;
    }
    this.#entries.splice(low, 0, entry);
  }
}
