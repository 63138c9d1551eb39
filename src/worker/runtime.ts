import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CjmError } from "../errors/index.ts";
import type { Envelope, LogLevel } from "../protocol/index.ts";
import {
  findAction,
  parseInput,
  parseOutput,
  type AnyStreaming,
  type AnyUnary,
  type SelectedAction,
} from "./actions.ts";
import type {
  Capability,
  TaskAdapter,
  TaskMethod,
  WorkerContext,
  WorkerLogger,
} from "./capability.ts";
import type { FrameSink } from "./control-stream.ts";
import { currentCall, withCall } from "./current-call.ts";
import { beat } from "./heartbeat.ts";
import { createLogger } from "./logger.ts";
import { ProgressReports } from "./progress.ts";
import { type OnLeft, RunningCall } from "./running-call.ts";

export interface RuntimeOptions {
  /** Where frames go. @default nowhere */
  readonly sink?: FrameSink;
  /** @default a new folder for temporary files, made on first use */
  readonly dataFolder?: string;
  /** @default "info" */
  readonly logLevel?: LogLevel;
  /** Task adapters beside the capability's own; one of the same task replaces the capability's. */
  readonly adapters?: readonly TaskAdapter[];
}

/** A capability at work: its config, its running calls, and what they report. */
export class WorkerRuntime {
  readonly capability: Capability;
  readonly sink: FrameSink;
  readonly progress: ProgressReports;
  readonly log: WorkerLogger;
  readonly #tasks: ReadonlyMap<string, TaskAdapter>;
  readonly #calls = new Set<RunningCall>();
  readonly #logLevel: LogLevel;
  #idle: PromiseWithResolvers<void> | undefined;
  #dataFolder: string | undefined;
  /** The config in force; undefined until initialized. */
  config: Readonly<Record<string, unknown>> | undefined;
  /** The cleanup hook, from its start until the next config is applied. */
  cleaning: Promise<void> | undefined;
  /** What all calls used so far. */
  readonly usage: Record<string, number> = {};

  constructor(capability: Capability, options: RuntimeOptions = {}) {
    this.capability = capability;
    this.sink = options.sink ?? { send: () => undefined };
    this.progress = new ProgressReports(this.sink);
    this.#logLevel = options.logLevel ?? "info";
    this.log = this.#createLog(() => currentCall()?.envelope.job_id ?? undefined);
    this.#dataFolder = options.dataFolder;
    const adapters = [...(capability.tasks ?? []), ...(options.adapters ?? [])];
    this.#tasks = new Map(adapters.map((adapter) => [adapter.task, adapter]));
  }

  #createLog(jobId: () => string | undefined): WorkerLogger {
    const { sink, capability } = this;
    return createLogger({ sink, name: capability.name, level: this.#logLevel, jobId });
  }

  get dataFolder(): string {
    this.#dataFolder ??= mkdtempSync(join(tmpdir(), "cjm-data-"));
    return this.#dataFolder;
  }

  /** What a hook of the life cycle gets; `progress` of it belongs to no job. */
  hookContext(signal: AbortSignal): WorkerContext {
    const report = (fraction: number, message = ""): void => {
      this.progress.report(undefined, fraction, message);
    };
    const dataFolder = (): string => this.dataFolder;
    return {
      log: this.log,
      get dataFolder() {
        return dataFolder();
      },
      signal,
      progress: report,
      heartbeat: (message, work) =>
        beat(work, (elapsed) => {
          report(-1, `${message} (${elapsed} s)`);
        }),
    };
  }

  /**
   * Begins a call, which is over if the host leaves. The caller ends it with
   * {@link WorkerRuntime.end}.
   *
   * @throws {CjmError} `CAPABILITY_NOT_LOADED` before `/initialize`.
   */
  begin(envelope: Envelope, onLeft: OnLeft): RunningCall {
    if (this.config === undefined) {
      throw new CjmError("CAPABILITY_NOT_LOADED", `${this.capability.name} is not initialized`);
    }
    const call = new RunningCall(
      {
        sink: this.sink,
        usage: this.usage,
        progress: this.progress,
        dataFolder: () => this.dataFolder,
        config: this.config,
        createLog: (jobId) => this.#createLog(() => jobId),
        invoke: (running, action, input) => this.#invoke(running, action, input),
      },
      envelope,
    );
    onLeft(() => {
      call.abort(new CjmError("CAPABILITY_CANCELLED", "the host closed the connection"));
    });
    this.#calls.add(call);
    return call;
  }

  /** Ends a call; what it reported reaches the host before its answer does. */
  async end(call: RunningCall): Promise<void> {
    call[Symbol.dispose]();
    this.#calls.delete(call);
    this.progress.finish(call.jobId);
    await this.sink.flush?.();
    if (this.#calls.size > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** Resolves when no call runs. */
  async idle(): Promise<void> {
    if (this.#calls.size === 0) return;
    this.#idle ??= Promise.withResolvers<void>();
    await this.#idle.promise;
  }

  /** Aborts the call of one job, or all; returns how many. */
  cancel(jobId?: string | null): number {
    const meant = [...this.#calls].filter((call) => jobId == null || call.jobId === jobId);
    for (const call of meant) {
      call.abort(new CjmError("CAPABILITY_CANCELLED", "cancelled by the host"));
    }
    return meant.length;
  }

  /** Runs an action that answers once: input and output are held to their schemas. */
  async run(call: RunningCall, { name, action, input }: SelectedAction): Promise<unknown> {
    if (action.streaming === true) {
      throw new CjmError("METHOD_NOT_SUPPORTED", `${name} streams: call /execute_stream`);
    }
    return this.runUnary(call, { name, action, input });
  }

  /** Runs what answers once: an action, or a method of a task adapter. */
  async runUnary(
    call: RunningCall,
    { name, action, input }: { name: string; action: AnyUnary; input: unknown },
  ): Promise<unknown> {
    const parsed = await parseInput(name, action, input);
    call.signal.throwIfAborted();
    const output = await withCall(call, () => action.handler(parsed, call));
    return parseOutput(name, action, output);
  }

  async #invoke(call: RunningCall, name: string, input: unknown): Promise<unknown> {
    const action = findAction(this.capability, name);
    if (action.streaming === true) throw new TypeError(`invoke cannot run ${name}: it streams`);
    return this.runUnary(call, { name, action, input });
  }

  /**
   * Starts an action as a stream of chunks; one that answers once is a stream of one chunk. Its
   * input is parsed before this resolves.
   */
  async stream(
    call: RunningCall,
    selected: SelectedAction,
  ): Promise<AsyncIterator<unknown, undefined>> {
    const { name, action } = selected;
    const input = await parseInput(name, action, selected.input);
    return this.#chunks(call, { name, action, input });
  }

  async *#chunks(
    call: RunningCall,
    { name, action, input }: { name: string; action: AnyUnary | AnyStreaming; input: unknown },
  ): AsyncGenerator<unknown, undefined> {
    call.signal.throwIfAborted();
    if (action.streaming !== true) {
      yield await parseOutput(name, action, await action.handler(input, call));
      return undefined;
    }
    for await (const chunk of action.handler(input, call)) {
      yield await parseOutput(name, action, chunk);
      call.signal.throwIfAborted();
    }
    return undefined;
  }

  /** @throws {CjmError} `METHOD_NOT_SUPPORTED` for what no bound adapter offers. */
  taskMethod(task: string, method: string): TaskMethod {
    const methods = this.#tasks.get(task)?.methods ?? {};
    const found =
      !method.startsWith("_") && Object.hasOwn(methods, method) ? methods[method] : undefined;
    if (found !== undefined) return found;
    throw new CjmError(
      "METHOD_NOT_SUPPORTED",
      `${this.capability.name} has no task method ${task}.${method}`,
      { fieldsInvalid: [this.#tasks.has(task) ? "method" : "task"] },
    );
  }
}
