import {
  bindInputs,
  type Composition,
  type InstanceDeclaration,
  validateComposition,
} from "../composition/index.ts";
import { CjmError, fromJobError } from "../errors/index.ts";
import type { SchedulerState } from "../scheduler/index.ts";
import type { JournalEvent, ResultFiles, StorePort } from "../store/index.ts";
import { compact } from "../util/compact.ts";
import { newId } from "../util/ids.ts";
import { stopAttempt } from "./attempt.ts";
import { CompositionHandle, type CompositionView, viewOfRun } from "./composition-handle.ts";
import { CompositionRunner } from "./composition-runner.ts";
import { ChunkChannel } from "./chunk-channel.ts";
import { cancelPending } from "./endings.ts";
import { followEvents } from "./follow.ts";
import { ALL_TOPIC, compositionTopic, jobTopic, type QueueEvent } from "./events.ts";
import type { CallTarget, Executor, InstanceFacts } from "./executor.ts";
import { JobHandle } from "./job-handle.ts";
import {
  isTerminal,
  type JobEntry,
  type JobSpec,
  type JobView,
  newEntry,
  viewOf,
  viewOfRecord,
} from "./job.ts";
import { resumableIds, resumeWork } from "./resume.ts";
import { RunLoop, type RunLoopOptions } from "./run-loop.ts";
import type { Unit } from "./unit.ts";

/** Who submits and why; stamped on every row of a job. */
export interface RunContext {
  /** Correlates jobs of one run of the caller. */
  readonly runId?: string | undefined;
  /** Who or what initiated the work. */
  readonly actor?: string | undefined;
}

export interface SubmitOptions extends RunContext, CallTarget {
  /** Higher is more urgent. @default 0 */
  readonly priority?: number | undefined;
  /** Flags of this call; they reach the worker beside the kwargs. */
  readonly control?: Readonly<Record<string, unknown>> | undefined;
  /** Milliseconds the call may take once its instance is ready. @default no limit */
  readonly timeoutMs?: number | undefined;
  /** Repeats after a failure that may pass. @default the queue's */
  readonly maxRetries?: number | undefined;
  /** The size of the input in whatever unit fits; jobs of similar size share a profile. */
  readonly inputSize?: number | undefined;
  /** For a first run: admitted beside others by this number, ended when it uses more. */
  readonly vramLimitMb?: number | undefined;
}

export interface QueueOptions extends RunLoopOptions {
  readonly maxRetries: number;
}

export interface QueueStats {
  readonly pending: number;
  readonly running: number;
  readonly completed: number;
  readonly failed: number;
  readonly cancelled: number;
}

/** Everything about one job of a composition that its submit adds. */
export interface MemberOptions {
  readonly compositionId: string;
  readonly nodeId: string;
  readonly itemIndex: number | null;
}

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
      this.cancelEntry(entry, unit);
    });
    return true;
  }

  /** Puts a job's cancel into the unit. @internal */
  cancelEntry(entry: JobEntry, unit: Unit): void {
    if (cancelPending(this.#loop, entry, unit) || entry.planned !== "running") return;
    if (entry.cancelPhase !== null) return;
    const now = new Date().toISOString();
    entry.cancelPhase = "cooperative";
    unit.jobEvent(entry, "cancel_phase_changed", { from: null, to: "cooperative" });
    unit.updateJob(entry, { cancelPhase: "cooperative", cancelRequestedAt: now }, (job) => {
      stopAttempt(this.#loop, job, "cancel");
    });
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
    const result = record.result === null ? undefined : await this.#results.load(record.result);
    return viewOfRecord(record, result);
  }

  /** A job that is in memory; undefined for an older or unknown one. */
  peek(jobId: string): JobView | undefined {
    const entry = this.#loop.jobs.get(jobId);
    return entry === undefined ? undefined : viewOf(entry);
  }

  /** Resolves with the job when it is over; it never rejects because the job failed. */
  async waitForJob(jobId: string): Promise<JobView> {
    await this.#loop.jobs.get(jobId)?.done.promise;
    const view = await this.getJob(jobId);
    if (view === undefined) throw new CjmError("JOB_UNKNOWN", `There is no job ${jobId}`);
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
    this.requireOpen();
    const bound = bindInputs({ ...this.#context, ...compact(composition) }, inputs);
    validateComposition(bound, {
      instance: (id, declaration) => this.#executor.surface(id, declaration),
      names: this.#executor.names(),
    });
    for (const [id, declaration] of Object.entries(bound.instances)) {
      this.#executor.declare(id, declaration);
    }
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

  /** The composition as it is now; undefined if this host does not run it. */
  getComposition(compositionId: string): CompositionView | undefined {
    const active = this.#compositions.active.get(compositionId);
    return active === undefined ? undefined : viewOfRun(active);
  }

  /** The nodes of a composition of this host as they were submitted. */
  compositionNodes(compositionId: string): Composition["nodes"] {
    return this.#compositions.active.get(compositionId)?.run.composition.nodes ?? [];
  }

  /** Compositions of this host, the newest last. */
  getCompositions(): CompositionView[] {
    return [...this.#compositions.active.values()].map(viewOfRun);
  }

  /** Resolves with the composition when it is over. */
  async waitForComposition(compositionId: string): Promise<CompositionView> {
    const active = this.#compositions.active.get(compositionId);
    if (active === undefined) {
      throw new CjmError("JOB_UNKNOWN", `This host runs no composition ${compositionId}`);
    }
    await active.done.promise;
    return viewOfRun(active);
  }

  /** Pending jobs, the most urgent first. */
  getPending(): JobView[] {
    return this.#views("pending").sort((a, b) => b.priority - a.priority);
  }

  getRunning(): JobView[] {
    return this.#views("running");
  }

  /** Jobs that are over and still in memory, the newest first. */
  getHistory(limit = Infinity): JobView[] {
    return this.#loop.finishedIds
      .toReversed()
      .slice(0, limit)
      .flatMap((id) => {
        const entry = this.#loop.jobs.get(id);
        return entry === undefined ? [] : [viewOf(entry)];
      });
  }

  /** Terminal rows of the journal, the newest first: the history that survives a restart. */
  async getHistoryFromJournal(limit?: number): Promise<readonly JournalEvent[]> {
    return await this.#store.terminalStateEvents(limit);
  }

  getStats(): QueueStats {
    const counts = { pending: 0, running: 0, completed: 0, failed: 0, cancelled: 0 };
    for (const { status } of this.#loop.jobs.values()) counts[status] += 1;
    return counts;
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
    return followEvents(this.#loop, this.#store, {
      topic: ALL_TOPIC,
      filter: afterSeq === undefined ? null : { afterSeq },
    });
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
    options: SubmitOptions & {
      readonly chunks?: ChunkChannel | null;
      readonly member?: MemberOptions;
    },
  ): JobEntry {
    const facts = this.#executor.facts(instanceId);
    if (!facts.isEnabled) {
      throw new CjmError("CAPABILITY_DISABLED", `Instance "${instanceId}" is disabled`);
    }
    this.#executor.check(instanceId, targetOf(options), kwargs);
    const { gpuModel } = this.#options.probe.snapshot();
    const inputSize = options.inputSize ?? null;
    return newEntry(
      {
        ...callerSpec(options, { ...this.#context, maxRetries: this.#options.maxRetries }),
        ...memberSpec(options.member),
        id: newId(),
        instanceId,
        capability: facts.capability,
        target: targetOf(options),
        kwargs,
        configHash: facts.configHash,
        codeHash: facts.codeHash,
        profileKey: this.#options.profiles.keyOf(facts, inputSize, gpuModel),
        inputBucket: inputSize,
        submittedAt: new Date().toISOString(),
      },
      {
        priority: options.priority ?? 0,
        seq: this.#loop.nextSeq(),
        chunks: options.chunks ?? null,
      },
    );
  }

  /** @throws {CjmError} `HOST_STOPPING` or `JOURNAL_UNAVAILABLE`. @internal */
  requireOpen(): void {
    if (this.#isStopping) {
      throw new CjmError("HOST_STOPPING", "The host is stopping and accepts no new work");
    }
    this.#loop.requireJournal();
  }

  async #submit(
    instanceId: string,
    kwargs: Readonly<Record<string, unknown>>,
    options: SubmitOptions & { readonly chunks: ChunkChannel | null },
  ): Promise<JobHandle> {
    this.requireOpen();
    const entry = this.newJob(instanceId, kwargs, options);
    await this.#loop.transact((unit) => {
      this.#loop.add(entry, unit);
    });
    return new JobHandle(this, entry.spec.id, entry.chunks);
  }

  #views(status: JobView["status"]): JobView[] {
    return [...this.#loop.jobs.values()].filter((job) => job.status === status).map(viewOf);
  }
}

function targetOf({ action, task, method }: CallTarget): CallTarget {
  return { action, task, method };
}

function callerSpec(
  options: SubmitOptions,
  defaults: RunContext & { readonly maxRetries: number },
): Pick<JobSpec, "control" | "maxRetries" | "timeoutMs" | "runId" | "actor" | "vramLimitMb"> {
  return {
    control: options.control ?? {},
    maxRetries: options.maxRetries ?? defaults.maxRetries,
    timeoutMs: options.timeoutMs ?? null,
    runId: options.runId ?? defaults.runId ?? null,
    actor: options.actor ?? defaults.actor ?? null,
    vramLimitMb: options.vramLimitMb ?? null,
  };
}

function memberSpec(
  member: MemberOptions | undefined,
): Pick<JobSpec, "compositionId" | "nodeId" | "itemIndex"> {
  return member ?? { compositionId: null, nodeId: null, itemIndex: null };
}
