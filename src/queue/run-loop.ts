import { CjmError, type JobError, toJobError } from "../errors/index.ts";
import {
  createScheduler,
  type Decision,
  decideRetry,
  describeBlock,
  type SchedulerConfig,
  type SchedulerEvent,
  type SchedulerState,
  step,
} from "../scheduler/index.ts";
import type { JournalEvent, ResultFiles, StorePort } from "../store/index.ts";
import { EventStream } from "./event-stream.ts";
import { type QueueEvent, topicsOf } from "./events.ts";
import type { ExecutionOutcome, Executor, InstanceChange } from "./executor.ts";
import { isTerminal, type JobEntry, plan, toNewJob } from "./job.ts";
import { ProfileBook } from "./profile-book.ts";
import type { ResourceProbe } from "./resource-probe.ts";
import { runAttempt } from "./attempt.ts";
import { terminalSnapshot } from "./snapshot.ts";
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

/** Told when a member job of a composition ends, inside the unit that ends it. */
export type MemberEnded = (entry: JobEntry, unit: Unit) => void;

/**
 * The single writer of all job state.
 *
 * Everything from outside becomes an event for the scheduler; its decisions and the rows they need
 * are staged as one unit; memory, dispatch, events and promises follow the commit.
 */
export class RunLoop {
  readonly events = new EventStream<QueueEvent>();
  readonly jobs = new Map<string, JobEntry>();
  readonly options: RunLoopOptions;
  readonly #scheduler: SchedulerState;
  readonly #now: () => number;
  readonly #finished: string[] = [];
  readonly #idle = new Set<() => void>();
  readonly #unsubscribe: (() => void)[] = [];
  #memberEnded: MemberEnded = () => undefined;
  #wake: NodeJS.Timeout | null = null;
  #nextSeq = 0;
  #inFlight = 0;
  #failure: unknown;
  #isPaused = false;
  #isClosed = false;

  constructor(options: RunLoopOptions) {
    this.options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#scheduler = createScheduler(options.scheduler);
    for (const [key, profile] of options.profiles.all()) {
      step(this.#scheduler, { type: "profile_changed", now: this.#now(), key, profile });
    }
  }

  /** Begins to follow measurements and instances. */
  start(): void {
    const { probe, executor } = this.options;
    this.#observe();
    this.#unsubscribe.push(
      probe.onChange(() => {
        this.#observe();
      }),
      executor.watchInstances((change) => {
        this.#instanceChanged(change);
      }),
    );
  }

  onMemberEnded(listener: MemberEnded): void {
    this.#memberEnded = listener;
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
    for (const event of events) this.#publish(toQueueEvent(event));
  }

  /** Like {@link transact} for what nobody waits for; a refused unit stops the acceptance of work. */
  run(body: (unit: Unit) => void): void {
    this.transact(body).catch((error: unknown) => {
      this.#failure ??= error;
    });
  }

  /** Puts a new job into the unit and lets the scheduler decide about it. */
  add(entry: JobEntry, unit: Unit): void {
    unit.write({ op: "job.insert", job: toNewJob(entry) });
    unit.jobEvent(entry, "job_submitted", {
      action: entry.spec.target.action ?? null,
      kwarg_names: Object.keys(entry.spec.kwargs).sort(),
      priority: entry.priority,
      ...(entry.spec.itemIndex !== null && { item_index: entry.spec.itemIndex }),
    });
    this.jobs.set(entry.spec.id, entry);
    this.enqueue(entry, unit);
  }

  /** Gives a pending job to the scheduler: a new one, one that is resumed, or one that is retried. */
  enqueue(entry: JobEntry, unit: Unit): void {
    const { spec } = entry;
    const job = {
      jobId: spec.id,
      instanceId: spec.instanceId,
      capability: spec.capability,
      profileKey: spec.profileKey,
      priority: entry.priority,
      seq: entry.seq,
      ...(spec.vramLimitMb !== null && { vramLimitMb: spec.vramLimitMb }),
    };
    this.#step({ type: "job_submitted", now: this.#now(), job }, unit);
  }

  /** Cancels a job that does not run. False if it runs or is over. */
  cancelPending(entry: JobEntry, unit: Unit): boolean {
    if (entry.planned !== "pending") return false;
    if (entry.retryTimer === null) {
      this.#step({ type: "job_removed", now: this.#now(), jobId: entry.spec.id }, unit);
    } else {
      clearTimeout(entry.retryTimer);
      entry.retryTimer = null;
    }
    this.#terminal(entry, { status: "cancelled", error: cancelledError(entry) }, unit);
    return true;
  }

  /** Changes the priority of a pending job. */
  reprioritize(entry: JobEntry, priority: number, unit: Unit): void {
    this.#step(
      { type: "job_reprioritized", now: this.#now(), jobId: entry.spec.id, priority },
      unit,
    );
    unit.updateJob(entry, { priority }, (job) => {
      job.priority = priority;
    });
  }

  /** A running attempt gave its result. */
  async completed(entry: JobEntry, outcome: ExecutionOutcome): Promise<void> {
    const result =
      entry.chunks === null && entry.collected.length > 0 ? entry.collected : outcome.result;
    const stored = await this.options.results.store(result);
    await this.transact((unit) => {
      this.#learn(entry, outcome, "completed", unit);
      this.#step(this.#finishedEvent(entry, "completed"), unit);
      this.#terminal(entry, { status: "completed", result, stored }, unit);
    });
  }

  /** A running attempt ended without a result. */
  async failed(entry: JobEntry, thrown: unknown): Promise<void> {
    const stop = entry.attemptNow?.stop ?? null;
    const error = this.#errorOf(entry, thrown, stop);
    if (stop === "cancel") {
      await this.transact((unit) => {
        this.#step(this.#finishedEvent(entry, "cancelled"), unit);
        this.#terminal(entry, { status: "cancelled", error }, unit);
      });
      return;
    }
    const isCollateral = endedByHost(thrown) && stop === null;
    const retry = isCollateral
      ? ({ retry: true, delayMs: 0, restartWorker: false, evict: false } as const)
      : decideRetry({
          category: error.category,
          code: error.code,
          attempt: entry.retryCount + 1,
          maxRetries: entry.spec.maxRetries,
          workerKilled: error.code === "WORKER_EXITED" || error.code === "WORKER_OOM",
          retryAfterSeconds: error.retry_after_seconds,
          random: Math.random(),
        });
    const outOfMemory = error.category === "resource";
    if (retry.retry && retry.restartWorker) {
      await this.options.executor.end(entry.spec.instanceId, "restarted for a retry");
    }
    await this.transact((unit) => {
      if (outOfMemory) this.#learn(entry, null, "out_of_memory", unit);
      const left = outOfMemory ? "out_of_memory" : retry.retry ? "requeued" : "failed";
      this.#step(this.#finishedEvent(entry, left), unit);
      if (retry.retry) this.#requeue(entry, error, { ...retry, isCounted: !isCollateral }, unit);
      else this.#terminal(entry, { status: "failed", error }, unit);
    });
  }

  /** Attempts that run on an instance now. */
  runningOn(instanceId: string): number {
    let count = 0;
    for (const { spec, planned } of this.jobs.values()) {
      if (planned === "running" && spec.instanceId === instanceId) count += 1;
    }
    return count;
  }

  /** Something the run loop relies on has failed: no new work is accepted. */
  reportFailure(error: unknown): void {
    this.#failure ??= error;
  }

  progress(entry: JobEntry, fraction: number, message: string): void {
    entry.progress = fraction;
    entry.statusMessage = message;
    this.#publishLiveness(entry, "progress_changed", {
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

  /** Ids of terminal jobs in memory, oldest first. */
  get finishedIds(): readonly string[] {
    return this.#finished;
  }

  /** What is admitted from now on is not sent; its rows stay pending for the next host. */
  pause(): void {
    this.#isPaused = true;
  }

  /** Stops following the outside; nothing new is dispatched. */
  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    if (this.#wake !== null) clearTimeout(this.#wake);
    for (const { retryTimer } of this.jobs.values()) {
      if (retryTimer !== null) clearTimeout(retryTimer);
    }
    this.#isClosed = true;
    this.events.end();
  }

  #observe(): void {
    const { gpus, ramFreeMb, diskFreeMb, instances } = this.options.probe.snapshot();
    this.run((unit) => {
      this.#step(
        { type: "telemetry", now: this.#now(), gpus, ramFreeMb, diskFreeMb, instances },
        unit,
      );
    });
  }

  #instanceChanged(change: InstanceChange): void {
    this.run((unit) => {
      this.#step(
        {
          type: "instance_changed",
          now: this.#now(),
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
    });
  }

  #step(event: SchedulerEvent, unit: Unit): void {
    for (const decision of step(this.#scheduler, event)) this.#decide(decision, unit);
  }

  #decide(decision: Decision, unit: Unit): void {
    switch (decision.type) {
      case "admit":
        this.#admit(decision, unit);
        return;
      case "block":
        this.#block(decision, unit);
        return;
      case "reject":
        this.#reject(decision, unit);
        return;
      case "evict":
        this.#evict(decision, unit);
        return;
      case "evict_refuted":
        unit.journal({
          eventType: "eviction_refuted",
          capabilityInstanceId: decision.instanceId,
          payload: { expected_mb: decision.expectedMb, seen_mb: decision.seenMb },
        });
        this.#endInstance(decision.instanceId, "kept memory that it said it had released", unit);
        return;
      case "respawn":
        this.#endInstance(decision.instanceId, decision.reason, unit);
        return;
      case "wake":
        this.#wakeAt(decision.at);
        return;
    }
  }

  #admit(decision: Extract<Decision, { type: "admit" }>, unit: Unit): void {
    // Its row stays pending: the next host can resume it.
    if (this.#isPaused) return;
    const entry = this.#entry(decision.jobId);
    const from = plan(entry, "running");
    const startedAt = new Date().toISOString();
    const attempt = entry.attempt + 1;
    unit.updateJob(entry, { status: "running", startedAt, attempt, blockReason: null }, (job) => {
      job.status = "running";
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
      this.#inFlight += 1;
      void this.#attempt(entry, decision.gpuUuid);
    });
  }

  async #attempt(entry: JobEntry, gpuUuid: string | null): Promise<void> {
    try {
      if (!this.#isClosed) await runAttempt(this, entry, gpuUuid);
    } catch (error) {
      // Only a unit that could not be committed comes here; the journal's own state says so.
      this.#failure ??= error;
    } finally {
      this.#inFlight -= 1;
      if (this.#inFlight === 0) {
        for (const wake of this.#idle) wake();
        this.#idle.clear();
      }
    }
  }

  #block(decision: Extract<Decision, { type: "block" }>, unit: Unit): void {
    const entry = this.#entry(decision.jobId);
    const from = entry.blockReason;
    const to = describeBlock(decision.reason);
    unit.jobEvent(entry, "block_reason_changed", { from, to, reason: decision.reason });
    unit.updateJob(entry, { blockReason: to }, (job) => {
      if (job.status === "pending") job.blockReason = to;
    });
  }

  #reject(decision: Extract<Decision, { type: "reject" }>, unit: Unit): void {
    const entry = this.#entry(decision.jobId);
    const { shortfall, advice } = decision;
    const error = new CjmError(
      "VRAM_NEVER_FITS",
      `Job needs ${shortfall.needed} MB of ${shortfall.resource}, ${shortfall.available} MB can be had: ${advice}`,
      { resourceShortfall: shortfall },
    );
    this.#terminal(entry, { status: "failed", error: this.#errorOf(entry, error, null) }, unit);
  }

  #evict(decision: Extract<Decision, { type: "evict" }>, unit: Unit): void {
    const { instanceId, forJobId, level } = decision;
    unit.journal({
      eventType: "eviction_requested",
      capabilityInstanceId: instanceId,
      payload: { for_job: forJobId, level },
    });
    unit.after(() => {
      void this.#release(instanceId, level);
    });
  }

  async #release(instanceId: string, level: string): Promise<void> {
    const replied = await this.options.executor.release(instanceId, level).then(
      () => true,
      () => false,
    );
    this.run((unit) => {
      unit.journal({
        eventType: "eviction_confirmed",
        capabilityInstanceId: instanceId,
        payload: { level, replied },
      });
      this.#step({ type: "eviction_finished", now: this.#now(), instanceId, replied }, unit);
    });
  }

  #endInstance(instanceId: string, reason: string, unit: Unit): void {
    unit.after(() => {
      this.options.executor.end(instanceId, reason).catch((error: unknown) => {
        this.#failure ??= error;
      });
    });
  }

  #wakeAt(at: number): void {
    if (this.#wake !== null) clearTimeout(this.#wake);
    this.#wake = setTimeout(
      () => {
        this.#wake = null;
        this.run((unit) => {
          this.#step({ type: "tick", now: this.#now() }, unit);
        });
      },
      Math.max(0, at - this.#now()),
    );
    this.#wake.unref();
  }

  #requeue(
    entry: JobEntry,
    error: JobError,
    retry: { readonly delayMs: number; readonly isCounted: boolean },
    unit: Unit,
  ): void {
    const from = plan(entry, "pending");
    const retryCount = entry.retryCount + (retry.isCounted ? 1 : 0);
    unit.jobEvent(entry, "retry_started", {
      attempt: entry.attempt,
      exception_repr: error.original_exc_repr,
      exception_category: error.category,
      code: error.code,
      delay_ms: retry.delayMs,
    });
    unit.jobEvent(entry, "state_transition", { from, to: "pending" });
    unit.updateJob(entry, { status: "pending", retryCount }, (job) => {
      job.status = "pending";
      job.retryCount = retryCount;
      job.attemptNow = null;
    });
    const again = (): void => {
      entry.retryTimer = null;
      this.run((later) => {
        this.enqueue(entry, later);
      });
    };
    entry.retryTimer = setTimeout(again, retry.delayMs);
  }

  #terminal(
    entry: JobEntry,
    end: {
      readonly status: "completed" | "failed" | "cancelled";
      readonly result?: unknown;
      readonly stored?: Awaited<ReturnType<ResultFiles["store"]>>;
      readonly error?: JobError;
    },
    unit: Unit,
  ): void {
    const from = plan(entry, end.status);
    const completedAt = new Date().toISOString();
    entry.result = end.result;
    entry.error = end.error ?? null;
    if (entry.attemptNow?.stop != null) {
      unit.jobEvent(entry, "cancel_phase_changed", { from: entry.cancelPhase, to: "completed" });
    }
    unit.jobEvent(entry, "state_transition", {
      from,
      to: end.status,
      job_snapshot: terminalSnapshot(entry, end.status, completedAt),
    });
    unit.updateJob(
      entry,
      {
        status: end.status,
        completedAt,
        blockReason: null,
        error: end.error ?? null,
        progress: entry.progress,
        statusMessage: entry.statusMessage,
        ...(end.stored !== undefined && { result: end.stored }),
      },
      (job) => {
        job.status = end.status;
        job.completedAt = completedAt;
        job.blockReason = null;
      },
    );
    this.#memberEnded(entry, unit);
    unit.after(() => {
      this.#settle(entry);
    });
  }

  #settle(entry: JobEntry): void {
    for (const timer of entry.attemptNow?.timers ?? []) clearTimeout(timer);
    entry.attemptNow = null;
    entry.chunks?.close();
    entry.done.resolve();
    this.#finished.push(entry.spec.id);
    if (this.#finished.length <= this.options.history) return;
    const oldest = this.#finished.shift();
    if (oldest !== undefined) this.jobs.delete(oldest);
  }

  #learn(
    entry: JobEntry,
    outcome: ExecutionOutcome | null,
    how: "completed" | "out_of_memory",
    unit: Unit,
  ): void {
    const learned = this.options.profiles.fold(entry, outcome, { how, now: this.#now() });
    if (learned === undefined) return;
    const { key, profile, record } = learned;
    unit.write({ op: "profile.put", profile: record });
    this.#step({ type: "profile_changed", now: this.#now(), key, profile }, unit);
  }

  #finishedEvent(
    entry: JobEntry,
    outcome: "completed" | "failed" | "cancelled" | "out_of_memory" | "requeued",
  ): SchedulerEvent {
    return { type: "job_finished", now: this.#now(), jobId: entry.spec.id, outcome };
  }

  #errorOf(entry: JobEntry, thrown: unknown, stop: string | null): JobError {
    const { spec } = entry;
    const context = { capabilityName: spec.capability, capabilityInstanceId: spec.instanceId };
    if (stop === "cancel") return cancelledError(entry);
    if (stop === "timeout") {
      const message = `${spec.capability} was not finished after ${spec.timeoutMs} ms`;
      return toJobError(new CjmError("CAPABILITY_TIMEOUT", message, { cause: thrown }), context);
    }
    const known = thrown instanceof CjmError ? thrown.details["jobError"] : undefined;
    // The worker's own account of its failure says more than a host's copy of it would.
    return { ...toJobError(thrown, context), ...(isJobError(known) ? known : {}) };
  }

  #entry(jobId: string): JobEntry {
    const entry = this.jobs.get(jobId);
    if (entry === undefined)
      throw new TypeError(`The scheduler decided about unknown job ${jobId}`);
    return entry;
  }

  #publish(event: QueueEvent): void {
    this.events.publish(topicsOf(event), event);
  }

  #publishLiveness(
    entry: JobEntry,
    type: string,
    payload: Readonly<Record<string, unknown>>,
  ): void {
    const { spec } = entry;
    this.#publish({
      seq: null,
      type,
      ts: new Date().toISOString(),
      jobId: spec.id,
      instanceId: spec.instanceId,
      compositionId: spec.compositionId,
      nodeId: spec.nodeId,
      runId: spec.runId,
      actor: spec.actor,
      payload,
    });
  }
}

export function toQueueEvent(event: JournalEvent): QueueEvent {
  return {
    seq: event.seq,
    type: event.eventType,
    ts: event.ts,
    jobId: event.jobId,
    instanceId: event.capabilityInstanceId,
    compositionId: event.compositionId,
    nodeId: event.nodeId,
    runId: event.runId,
    actor: event.actor,
    payload: event.payload,
  };
}

function isJobError(value: unknown): value is JobError {
  return typeof value === "object" && value !== null && "category" in value && "code" in value;
}

/** The host ended this worker for a reason that had nothing to do with the job. */
function endedByHost(thrown: unknown): boolean {
  return (
    thrown instanceof CjmError &&
    thrown.code === "WORKER_EXITED" &&
    thrown.details["isEndedByHost"] === true
  );
}

function cancelledError({ spec }: JobEntry): JobError {
  return toJobError(new CjmError("CAPABILITY_CANCELLED", `Job ${spec.id} was cancelled`), {
    capabilityName: spec.capability,
    capabilityInstanceId: spec.instanceId,
    tracebackPolicy: "repr_only",
  });
}
