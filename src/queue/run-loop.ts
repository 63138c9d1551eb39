import { CjmError } from "../errors/index.ts";
import {
  createScheduler,
  type SchedulerConfig,
  type SchedulerEvent,
  type SchedulerState,
  step,
} from "../scheduler/index.ts";
import type { ResultFiles, StorePort } from "../store/index.ts";
import { decide } from "./decisions.ts";
import type { Executor, InstanceChange } from "./executor.ts";
import { type JobEntry, toNewJob } from "./job.ts";
import { JobTable } from "./job-table.ts";
import { MachineWatch } from "./machine-watch.ts";
import type { ProfileBook } from "./profile-book.ts";
import { Publisher } from "./publisher.ts";
import type { ResourceProbe } from "./resource-probe.ts";
import { Unit } from "./unit.ts";

export interface RunLoopOptions {
  readonly store: StorePort;
  readonly results: ResultFiles;
  readonly executor: Executor;
  readonly probe: ResourceProbe;
  readonly profiles: ProfileBook;
  readonly scheduler: SchedulerConfig;
  readonly cancelTimeoutMs: number;
  /** Terminal jobs kept in memory. */
  readonly history: number;
  /** Monotonic milliseconds. */
  readonly now?: () => number;
}

/** What the run loop asks and tells the owner of compositions about their member jobs. */
export interface MemberOwner {
  /** A member has ended; told inside the unit that ends it. */
  ended(entry: JobEntry, unit: Unit): void;
  /** Nothing of its composition starts any more, not even what is to be repeated. */
  isHalted(entry: JobEntry): boolean;
}

/**
 * The single writer of all job state.
 *
 * Everything from outside becomes an event for the scheduler; its decisions and the rows they need
 * are staged as one unit; memory, dispatch, events and promises follow the commit.
 */
export class RunLoop {
  readonly events = new Publisher();
  readonly jobs: JobTable;
  readonly machine: MachineWatch;
  readonly options: RunLoopOptions;
  readonly #scheduler: SchedulerState;
  /** Monotonic milliseconds. */
  readonly now: () => number;
  readonly #idle = new Set<() => void>();
  readonly #wakes = new Set<NodeJS.Timeout>();
  readonly #introduced = new Set<string>();
  #members: MemberOwner | null = null;
  #unwatch: () => void = () => undefined;
  #nextSeq = 0;
  #inFlight = 0;
  #failure: unknown;
  #isPaused = false;
  #isClosed = false;

  constructor(options: RunLoopOptions) {
    this.options = options;
    this.now = options.now ?? (() => performance.now());
    this.jobs = new JobTable(options.history);
    this.machine = new MachineWatch(this);
    this.#scheduler = createScheduler(options.scheduler);
    for (const [key, profile] of options.profiles.all()) {
      step(this.#scheduler, { type: "profile_changed", now: this.now(), key, profile });
    }
  }

  /** Begins to follow measurements and instances. */
  start(): void {
    this.machine.start();
    this.#unwatch = this.options.executor.watchInstances((change) => {
      this.#instanceChanged(change);
    });
  }

  /** Names who owns the member jobs of compositions. */
  ownMembers(owner: MemberOwner): void {
    this.#members = owner;
  }

  memberEnded(entry: JobEntry, unit: Unit): void {
    if (entry.spec.compositionId !== null) this.#members?.ended(entry, unit);
  }

  /** Whether the job may not run again because its composition has failed or was cancelled. */
  isHalted(entry: JobEntry): boolean {
    return entry.spec.compositionId !== null && this.#members?.isHalted(entry) === true;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get isClosed(): boolean {
    return this.#isClosed;
  }

  get state(): SchedulerState {
    return this.#scheduler;
  }

  nextSeq(): number {
    this.#nextSeq += 1;
    return this.#nextSeq;
  }

  /** @throws {CjmError} `JOURNAL_UNAVAILABLE` while nothing can be journaled. */
  requireJournal(): void {
    if (this.#failure !== undefined || !this.options.store.available) {
      throw new CjmError(
        "JOURNAL_UNAVAILABLE",
        "The journal cannot be written, so no new work is accepted",
        { cause: this.#failure },
      );
    }
  }

  /** Runs `body` and commits what it put into the unit; resolves after the commit's effects. */
  async transact(body: (unit: Unit) => void): Promise<void> {
    const unit = new Unit();
    body(unit);
    if (unit.writes.length === 0) {
      unit.runEffects();
      return;
    }
    const { events } = await this.options.store.stage(unit.writes);
    unit.runEffects();
    this.events.committed(events);
  }

  /** Like {@link transact} for what nobody waits for; a refused unit stops the acceptance of work. */
  run(body: (unit: Unit) => void): void {
    this.transact(body).catch((error: unknown) => {
      this.#failure ??= error;
    });
  }

  /** Puts a new job into the unit and lets the scheduler decide about it. */
  add(entry: JobEntry, unit: Unit): void {
    unit.insertJob(toNewJob(entry));
    unit.jobEvent(entry, "job_submitted", {
      action: entry.spec.target.action ?? null,
      kwarg_names: Object.keys(entry.spec.kwargs).sort(),
      priority: entry.priority,
      ...(entry.spec.itemIndex !== null && { item_index: entry.spec.itemIndex }),
    });
    this.jobs.add(entry);
    this.enqueue(entry, unit);
  }

  /** Gives a pending job to the scheduler: a new one, one that is resumed, or one that is retried. */
  enqueue(entry: JobEntry, unit: Unit): void {
    const { spec } = entry;
    this.#introduce(spec.instanceId, unit);
    const job = {
      jobId: spec.id,
      instanceId: spec.instanceId,
      capability: spec.capability,
      profileKey: spec.profileKey,
      priority: entry.priority,
      seq: entry.seq,
      ...(spec.vramLimitMb !== null && { vramLimitMb: spec.vramLimitMb }),
    };
    this.step({ type: "job_submitted", now: this.now(), job }, unit);
  }

  /** Changes the priority of a pending job. */
  reprioritize(entry: JobEntry, priority: number, unit: Unit): void {
    this.step({ type: "job_reprioritized", now: this.now(), jobId: entry.spec.id, priority }, unit);
    unit.updateJob(entry, { priority }, (job) => {
      job.priority = priority;
    });
  }

  /** Something the run loop relies on has failed: no new work is accepted. */
  reportFailure(error: unknown): void {
    this.#failure ??= error;
  }

  progress(entry: JobEntry, fraction: number, message: string): void {
    entry.progress = fraction;
    entry.statusMessage = message;
    this.events.liveness(entry, "progress_changed", {
      progress: fraction,
      status_message: message,
    });
  }

  /** Resolves when no job runs, or `timeoutMs` later; false in the latter case. */
  async drained(timeoutMs: number): Promise<boolean> {
    if (this.#inFlight === 0) return true;
    const done = Promise.withResolvers<boolean>();
    const timer = setTimeout(() => {
      done.resolve(false);
    }, timeoutMs);
    this.#idle.add(() => {
      done.resolve(true);
    });
    const isDrained = await done.promise;
    clearTimeout(timer);
    return isDrained;
  }

  /** What is admitted from now on is not sent; its rows stay pending for the next host. */
  pause(): void {
    this.#isPaused = true;
  }

  /**
   * Stops following the outside; nothing new is dispatched. Whoever waits for a job that is not over
   * is told that this host has stopped.
   */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.machine.stop();
    this.#unwatch();
    for (const timer of this.#wakes) clearTimeout(timer);
    for (const entry of this.jobs.values()) {
      if (entry.retryTimer !== null) clearTimeout(entry.retryTimer);
      for (const timer of entry.attemptNow?.timers ?? []) clearTimeout(timer);
      entry.chunks?.close({ error: hostStopped(entry.spec.id) });
      entry.done.resolve();
    }
    this.events.end();
  }

  /** An instance that never ran is unknown to the scheduler until its first job. */
  #introduce(instanceId: string, unit: Unit): void {
    if (this.#introduced.has(instanceId)) return;
    const { capability, maxConcurrentRequests } = this.options.executor.facts(instanceId);
    this.#changed(
      { instanceId, capability, state: "absent", gpuUuid: null, maxConcurrentRequests },
      unit,
    );
  }

  #instanceChanged(change: InstanceChange): void {
    this.run((unit) => {
      this.#changed(change, unit);
    });
  }

  #changed(change: InstanceChange, unit: Unit): void {
    this.#introduced.add(change.instanceId);
    this.step(
      {
        type: "instance_changed",
        now: this.now(),
        instanceId: change.instanceId,
        capability: change.capability,
        state: change.state,
        gpuUuid: change.gpuUuid,
        maxConcurrent: change.maxConcurrentRequests,
        observedVramMb: null,
        observedRamMb: null,
      },
      unit,
    );
  }

  /** Tells the scheduler what happened and puts what it decides into the unit. */
  step(event: SchedulerEvent, unit: Unit): void {
    for (const decision of step(this.#scheduler, event)) decide(this, decision, unit);
  }

  /** Carries out an attempt that was admitted. */
  dispatch(attempt: () => Promise<void>): void {
    if (this.#isClosed) return;
    this.#inFlight += 1;
    void this.#follow(attempt);
  }

  async #follow(attempt: () => Promise<void>): Promise<void> {
    try {
      await attempt();
    } catch (error) {
      // Only a unit that could not be committed comes here.
      this.reportFailure(error);
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) {
        for (const wake of this.#idle) wake();
        this.#idle.clear();
      }
    }
  }

  wakeAt(at: number): void {
    if (this.#isClosed) return;
    const timer = setTimeout(
      () => {
        this.#wakes.delete(timer);
        this.run((unit) => {
          this.step({ type: "tick", now: this.now() }, unit);
        });
      },
      Math.max(0, at - this.now()),
    );
    timer.unref();
    this.#wakes.add(timer);
  }

  /** Tells everyone who waits that a job is over; its terminal row is committed. */
  settle(entry: JobEntry): void {
    for (const timer of entry.attemptNow?.timers ?? []) clearTimeout(timer);
    entry.attemptNow = null;
    entry.chunks?.close();
    entry.stored = null;
    entry.done.resolve();
  }

  /** @throws {TypeError} for a job nobody submitted: a bug. */
  entry(jobId: string): JobEntry {
    const entry = this.jobs.get(jobId);
    if (entry === undefined)
      throw new TypeError(`The scheduler decided about unknown job ${jobId}`);
    return entry;
  }
}

/** What is told to those who wait for work that this host will not finish. */
export function hostStopped(id: string): CjmError {
  return new CjmError("HOST_STOPPING", `The host stopped before ${id} was over; it can be resumed`);
}
