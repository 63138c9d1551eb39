import {
  bindInputs,
  type Composition,
  type InstanceDeclaration,
  validateComposition,
} from "../composition/index.ts";
import { CjmError, fromJobError, toError } from "../errors/index.ts";
import {
  pendingInOrder,
  profileKey,
  type ResourceProfile,
  type SchedulerState,
} from "../scheduler/index.ts";
import type {
  DiagnosticsStore,
  JournalEvent,
  ResultFiles,
  StoredRecord,
  StorePort,
} from "../store/index.ts";
import { compact } from "../util/compact.ts";
import { cancelJob } from "./cancellation.ts";
import { ChunkChannel } from "./chunk-channel.ts";
import { CompositionHandle } from "./composition-handle.ts";
import { CompositionRunner } from "./composition-runner.ts";
import { type CompositionView, storedView, viewOfRun } from "./composition-view.ts";
import { ALL_TOPIC, compositionTopic, jobTopic, type QueueEvent } from "./events.ts";
import type { Executor, InstanceFacts } from "./executor.ts";
import { followEvents } from "./follow.ts";
import { isTerminal, type JobEntry, type JobView, viewOf, viewOfRecord } from "./job.ts";
import { JobHandle } from "./job-handle.ts";
import type { JobCounts } from "./job-table.ts";
import type { JobSnapshot } from "./machine-watch.ts";
import { resumableIds, resumeWork } from "./resume.ts";
import { hostStopped, RunLoop, type RunLoopOptions } from "./run-loop.ts";
import {
  newJob,
  type NewJobOptions,
  requireStorable,
  type RunContext,
  type SubmitOptions,
} from "./submission.ts";

export interface QueueOptions extends RunLoopOptions {
  readonly maxRetries: number;
  /** Jobs that may wait at once; more are refused. @default 200,000 */
  readonly maxPending?: number | undefined;
  /** Where the workers' log records are kept. @default nowhere */
  readonly diagnostics?: Pick<DiagnosticsStore, "flush" | "queryRecords"> | undefined;
}

const MAX_PENDING = 200_000;

/**
 * Durable jobs on measured admission.
 *
 * A job's id is given out after its row is committed; its end is announced after its terminal row
 * is. Made by `createPipeline`.
 */
export class JobQueue {
  readonly #loop: RunLoop;
  readonly #compositions: CompositionRunner;
  readonly #store: StorePort;
  readonly #results: ResultFiles;
  readonly #executor: Executor;
  readonly #options: QueueOptions;
  #context: RunContext = {};
  #isStopping = false;

  constructor(options: QueueOptions) {
    this.#options = options;
    this.#store = options.store;
    this.#results = options.results;
    this.#executor = options.executor;
    this.#loop = new RunLoop(options);
    this.#compositions = new CompositionRunner(this);
  }

  /** The single writer behind this queue; for the parts of the queue only. @internal */
  get loop(): RunLoop {
    return this.#loop;
  }

  start(): void {
    this.#loop.start();
  }

  /**
   * Takes no new work, lets running jobs end for `drainMs`, then leaves them: what is unfinished
   * can be resumed by the next host.
   *
   * @returns whether everything that ran has ended.
   */
  async stop(drainMs: number): Promise<boolean> {
    this.#isStopping = true;
    this.#loop.pause();
    const isDrained = await this.#loop.drained(drainMs);
    this.#loop.close();
    this.#compositions.close();
    return isDrained;
  }

  /** The run id and actor of submits that name none. */
  setDefaultRunContext(context: RunContext): void {
    this.#context = context;
  }

  /**
   * Submits one call. Resolves when the job is durable.
   *
   * @throws {CjmError} `CAPABILITY_UNKNOWN`, `CAPABILITY_DISABLED`, `ACTION_UNKNOWN`, `CAPABILITY_INPUT`
   *   naming every bad field, `JOURNAL_UNAVAILABLE`, `HOST_STOPPING`. Nothing is stored then.
   */
  async submit(
    instanceId: string,
    kwargs: Readonly<Record<string, unknown>> = {},
    options: SubmitOptions = {},
  ): Promise<JobHandle> {
    return await this.#submit(instanceId, kwargs, { ...options, chunks: null });
  }

  /**
   * Submits a streaming call. Its chunks are read from the handle; leaving the loop cancels it.
   *
   * @throws what {@link submit} throws; `METHOD_NOT_SUPPORTED` if the action does not stream.
   */
  async submitStream(
    instanceId: string,
    kwargs: Readonly<Record<string, unknown>> = {},
    options: SubmitOptions = {},
  ): Promise<JobHandle> {
    const { isStreaming } = this.#executor.check(instanceId, options, kwargs);
    if (!isStreaming) {
      throw new CjmError("METHOD_NOT_SUPPORTED", `This action of ${instanceId} does not stream`);
    }
    return await this.#submit(instanceId, kwargs, { ...options, chunks: new ChunkChannel() });
  }

  /** Asks a job to stop: a pending one leaves at once. False if it is unknown or over. */
  async cancel(jobId: string): Promise<boolean> {
    const entry = this.#loop.jobs.get(jobId);
    if (entry === undefined || isTerminal(entry.planned)) return false;
    await this.#loop.transact((unit) => {
      cancelJob(this.#loop, entry, unit);
    });
    return true;
  }

  /** Changes the priority of a pending job. False if it is not pending. */
  async reorder(jobId: string, priority: number): Promise<boolean> {
    const entry = this.#loop.jobs.get(jobId);
    if (entry?.planned !== "pending") return false;
    await this.#loop.transact((unit) => {
      this.#loop.reprioritize(entry, priority, unit);
    });
    return true;
  }

  /** The job as it is committed now; undefined if there is none. */
  async getJob(jobId: string): Promise<JobView | undefined> {
    const entry = this.#loop.jobs.get(jobId);
    if (entry !== undefined) return viewOf(entry);
    const record = await this.#store.getJob(jobId);
    if (record === undefined) return undefined;
    const result = record.result === null ? undefined : await this.#results.show(record.result);
    return viewOfRecord(record, result);
  }

  /** A job that is in memory; undefined for an older or unknown one. */
  peek(jobId: string): JobView | undefined {
    const entry = this.#loop.jobs.get(jobId);
    return entry === undefined ? undefined : viewOf(entry);
  }

  /**
   * Resolves with the job when it is over; it never rejects because the job failed.
   *
   * @throws {CjmError} `JOB_UNKNOWN`; `HOST_STOPPING` if this host does not finish it.
   * @throws the reason of `signal`, which ends the wait and not the job.
   */
  async waitForJob(jobId: string, signal?: AbortSignal): Promise<JobView> {
    const entry = this.#loop.jobs.get(jobId);
    if (entry !== undefined) await ended(entry.done.promise, signal);
    const view = entry === undefined ? await this.getJob(jobId) : viewOf(entry);
    if (view === undefined) throw new CjmError("JOB_UNKNOWN", `There is no job ${jobId}`);
    if (!isTerminal(view.status)) throw hostStopped(`job ${jobId}`);
    return view;
  }

  /** @throws the job's own error if it failed, `CAPABILITY_CANCELLED` if it was cancelled. */
  async resultOf(jobId: string): Promise<unknown> {
    const view = await this.waitForJob(jobId);
    if (view.status === "completed") return view.result;
    throw view.error === null
      ? new CjmError("CAPABILITY_ERROR", `Job ${jobId} is ${view.status}`)
      : fromJobError(view.error);
  }

  /**
   * Submits a DAG of calls. Resolves when it is durable.
   *
   * @param inputs values of the inputs that the composition declares.
   * @throws {CjmError} `COMPOSITION_INVALID` naming everything that is wrong with it, and what
   *   {@link submit} throws for the host's own state. Nothing is stored then.
   */
  async submitComposition(
    composition: Composition,
    inputs: Readonly<Record<string, unknown>> = {},
  ): Promise<CompositionHandle> {
    this.#requireRoom();
    const bound = bindInputs({ ...this.#context, ...compact(composition) }, inputs);
    validateComposition(bound, {
      instance: (id, declaration) => this.#executor.surface(id, declaration),
      names: this.#executor.names(),
    });
    for (const [id, declaration] of Object.entries(bound.instances)) {
      this.#executor.declare(id, declaration);
    }
    this.#requireCacheable(bound);
    const { run } = await this.#compositions.submit(bound);
    return new CompositionHandle(this, run.id);
  }

  /** Cancels a composition and what it runs. False if it is unknown or over. */
  async cancelComposition(compositionId: string): Promise<boolean> {
    const active = this.#compositions.active.get(compositionId);
    if (active?.run.status !== "running" || active.run.cancelRequested) return false;
    await this.#loop.transact((unit) => {
      this.#compositions.cancel(active, unit);
    });
    return true;
  }

  /**
   * Continues what an earlier host left unfinished: a composition or a single job. What was
   * completed is not run again; what was interrupted is. False if there is nothing to continue.
   *
   * @throws {CjmError} `JOB_UNKNOWN` for an id the store does not have.
   */
  async resume(id: string): Promise<boolean> {
    this.requireOpen();
    return await resumeWork(id, {
      queue: this,
      compositions: this.#compositions,
      ...this.#options,
    });
  }

  /** Ids of unfinished compositions and single jobs that this host does not run. */
  async resumable(): Promise<readonly string[]> {
    return await resumableIds(this, this.#options.store);
  }

  /** The composition as it is now, from whichever host ran it; undefined if there is none. */
  async getComposition(compositionId: string): Promise<CompositionView | undefined> {
    const active = this.#compositions.active.get(compositionId);
    return active === undefined
      ? await storedView(compositionId, this.#options)
      : viewOfRun(active);
  }

  /** Whether this host runs the composition, or has run it lately. */
  hasComposition(compositionId: string): boolean {
    return this.#compositions.active.has(compositionId);
  }

  /** The nodes of a composition of this host as they were submitted. */
  compositionNodes(compositionId: string): Composition["nodes"] {
    return this.#compositions.active.get(compositionId)?.run.composition.nodes ?? [];
  }

  /** Compositions that this host runs or has run lately, the newest last. */
  getCompositions(): Pick<CompositionView, "id" | "name" | "status">[] {
    return [...this.#compositions.active.values()].map(({ run, committed }) => ({
      id: run.id,
      name: run.composition.name ?? null,
      status: committed,
    }));
  }

  /**
   * Resolves with the composition when it is over.
   *
   * @throws {CjmError} `JOB_UNKNOWN`; `HOST_STOPPING` if this host does not finish it.
   * @throws the reason of `signal`, which ends the wait and not the composition.
   */
  async waitForComposition(compositionId: string, signal?: AbortSignal): Promise<CompositionView> {
    const active = this.#compositions.active.get(compositionId);
    if (active !== undefined) await ended(active.done.promise, signal);
    const view =
      active === undefined ? await this.getComposition(compositionId) : viewOfRun(active);
    if (view === undefined) {
      throw new CjmError("JOB_UNKNOWN", `There is no composition ${compositionId}`);
    }
    if (view.status === "running") throw hostStopped(`composition ${compositionId}`);
    return view;
  }

  /** Pending jobs, the most urgent first; those that wait for a retry come last. */
  getPending(): JobView[] {
    const inOrder = pendingInOrder(this.#loop.state).map(({ jobId }) => this.#loop.jobs.get(jobId));
    const pending = inOrder.filter((entry) => entry?.status === "pending");
    const delayed = [...this.#loop.jobs.values()].filter(({ retryTimer }) => retryTimer !== null);
    return [...pending, ...delayed].flatMap((entry) =>
      entry === undefined ? [] : [viewOf(entry)],
    );
  }

  getRunning(): JobView[] {
    return [...this.#loop.jobs.running()].filter(({ status }) => status === "running").map(viewOf);
  }

  /** Jobs that are over and still in memory, the newest first. */
  getHistory(limit = Infinity): JobView[] {
    return [...this.#loop.jobs.finished()].toReversed().slice(0, limit).map(viewOf);
  }

  /** Terminal rows of the journal, the newest first: the history that survives a restart. */
  async getHistoryFromJournal(limit?: number): Promise<readonly JournalEvent[]> {
    return await this.#store.terminalStateEvents(limit);
  }

  /** Log records of exactly this job, oldest first; go on with the last record's `seq`. */
  async getJobDiagnostics(
    jobId: string,
    options: { readonly limit?: number; readonly afterSeq?: number } = {},
  ): Promise<readonly StoredRecord[]> {
    const { diagnostics } = this.#options;
    await diagnostics?.flush();
    return (await diagnostics?.queryRecords({ limit: 200, ...options, jobId })) ?? [];
  }

  /** How many jobs are pending and running, and how many have ended since the host started. */
  getStats(): JobCounts {
    return { ...this.#loop.jobs.counts };
  }

  /** What a running job's worker holds now; null if it does not run or nothing measures it. */
  getResourceSnapshot(jobId: string): JobSnapshot | null {
    const entry = this.#loop.jobs.get(jobId);
    return entry === undefined ? null : this.#loop.machine.snapshotOf(entry);
  }

  /** What jobs were measured to need. */
  getProfiles(capability?: string): readonly ResourceProfile[] {
    return this.#options.profiles.list(capability);
  }

  /** Forgets it: the next job of each key is its measurement again. @returns how many. */
  async clearProfiles(capability?: string): Promise<number> {
    const { profiles } = this.#options;
    const keys = profiles.list(capability).map((profile) => profileKey(profile.key));
    await this.#loop.transact((unit) => {
      for (const key of keys) {
        profiles.forget(key);
        unit.write({ op: "profile.delete", key });
        const event = {
          type: "profile_changed",
          now: this.#loop.now(),
          key,
          profile: null,
        } as const;
        this.#loop.step(event, unit);
      }
    });
    return keys.length;
  }

  /** What the scheduler knows now, for its queries. */
  get schedulerState(): SchedulerState {
    return this.#loop.state;
  }

  /** Events of one job: what is journaled after `afterSeq`, then live. Leaving the loop unsubscribes. */
  events(jobId: string, afterSeq = 0): AsyncGenerator<QueueEvent> {
    return followEvents(this.#loop, this.#store, {
      topic: jobTopic(jobId),
      filter: { jobId, afterSeq },
    });
  }

  eventsForComposition(compositionId: string, afterSeq = 0): AsyncGenerator<QueueEvent> {
    return followEvents(this.#loop, this.#store, {
      topic: compositionTopic(compositionId),
      filter: { compositionId, afterSeq },
    });
  }

  /** Every event; without `afterSeq` only what happens from now on. */
  allEvents(afterSeq?: number): AsyncGenerator<QueueEvent> {
    const after = afterSeq ?? this.#loop.events.lastSeq ?? this.#lastSeq();
    return this.#allAfter(after);
  }

  /** Tells subscribers of rows that others than the queue have written. */
  announce(events: readonly JournalEvent[]): void {
    this.#loop.events.committed(events);
  }

  async *#allAfter(after: number | Promise<number>): AsyncGenerator<QueueEvent> {
    const filter = { afterSeq: await after };
    yield* followEvents(this.#loop, this.#store, { topic: ALL_TOPIC, filter });
  }

  async #lastSeq(): Promise<number> {
    const [last] = await this.#store.queryJournal({ descending: true, limit: 1 });
    return last?.seq ?? 0;
  }

  /** @internal */
  declareInstance(id: string, declaration: InstanceDeclaration): void {
    this.#executor.declare(id, declaration);
  }

  /** @internal */
  factsOf(instanceId: string): InstanceFacts {
    return this.#executor.facts(instanceId);
  }

  /** A new job of this queue, checked completely and not yet stored. @internal */
  newJob(
    instanceId: string,
    kwargs: Readonly<Record<string, unknown>>,
    options: NewJobOptions,
  ): JobEntry {
    const { maxRetries } = this.#options;
    return newJob(this.#loop, { instanceId, kwargs, options, context: this.#context, maxRetries });
  }

  /** @throws {CjmError} `HOST_STOPPING` or `JOURNAL_UNAVAILABLE`. @internal */
  requireOpen(): void {
    if (this.#isStopping) {
      throw new CjmError("HOST_STOPPING", "The host is stopping and accepts no new work");
    }
    this.#loop.requireJournal();
  }

  /** Without a hash of its code a call cannot be told from one of other code. */
  #requireCacheable({ nodes }: Composition): void {
    const wrong = nodes.filter(
      ({ cache, instance }) => cache && this.#executor.facts(instance).codeHash === null,
    );
    if (wrong.length === 0) return;
    const list = wrong.map(({ id, instance }) => `${id} (${instance})`).join(", ");
    throw new CjmError(
      "COMPOSITION_INVALID",
      `The code of these has no hash, so that nothing can be cached: ${list}; install them with cjm-ctl install-all`,
      { fieldsInvalid: wrong.map(({ id }) => `${id}.cache`) },
    );
  }

  /** @throws {CjmError} `QUEUE_FULL` besides what {@link requireOpen} throws. */
  #requireRoom(): void {
    this.requireOpen();
    const limit = this.#options.maxPending ?? MAX_PENDING;
    if (this.#loop.jobs.counts.pending < limit) return;
    throw new CjmError("QUEUE_FULL", `${limit} jobs wait already; try again when some are done`);
  }

  async #submit(
    instanceId: string,
    kwargs: Readonly<Record<string, unknown>>,
    options: SubmitOptions & { readonly chunks: ChunkChannel | null },
  ): Promise<JobHandle> {
    this.#requireRoom();
    requireStorable(kwargs, options);
    const entry = this.newJob(instanceId, kwargs, options);
    await this.#loop.transact((unit) => {
      this.#loop.add(entry, unit);
    });
    return new JobHandle(this, entry.spec.id, entry.chunks);
  }
}

/** Waits for `done` unless the signal comes first. */
async function ended(done: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) {
    await done;
    return;
  }
  signal.throwIfAborted();
  const aborted = Promise.withResolvers<never>();
  const onAbort = (): void => {
    aborted.reject(toError(signal.reason));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    await Promise.race([done, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}
