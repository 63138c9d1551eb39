import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import type { InstanceDeclaration, InstanceSurface } from "../composition/index.ts";
import { CjmError } from "../errors/index.ts";
import { statusReplySchema } from "../protocol/index.ts";
import type {
  CallInputs,
  CallTarget,
  ExecutableCall,
  ExecutionEvents,
  ExecutionOutcome,
  Executor,
  InstanceChange,
  InstanceFacts,
} from "../queue/executor.ts";
import { compact } from "../util/compact.ts";
import { hashCanonical } from "../util/canonical-json.ts";
import { isRecord } from "../util/record.ts";
import type { ActiveCall } from "./active-calls.ts";
import { tasksOf } from "./adapters.ts";
import { type CallSurface, checkKwargs, findAction } from "./call-check.ts";
import type { BegunCall, CapabilityInstance } from "./instance.ts";
import type { CapabilityManager } from "./manager.ts";
import { adoptOutputs } from "./output-files.ts";
import { redactError, redactRecord } from "./redaction.ts";

/** Measures what a job's worker really used; `host.ts` connects it to the telemetry. */
export interface JobMeter {
  begin(jobId: string, instanceId: string, pid: number): void;
  end(jobId: string): Promise<ExecutionOutcome["peaks"]>;
}

/** How long a worker may take to give memory back: a large model is copied out of the GPU. */
const RELEASE_TIMEOUT_MS = 30_000;

export interface ExecutorOptions {
  /** Attempt folders: `<work>/<job>/<attempt>/`. */
  readonly work: string;
  /** Adopted files. */
  readonly files: string;
  /** After it a worker that was asked to release memory counts as hung. @default 30,000 */
  readonly releaseTimeoutMs?: number;
}

/** Runs the queue's jobs on the manager's instances. */
export class CapabilityExecutor implements Executor {
  readonly #manager: CapabilityManager;
  readonly #meter: JobMeter;
  readonly #options: ExecutorOptions;
  /** By config object: hashing it for every job would cost more than the rest of its admission. */
  readonly #resourceHashes = new WeakMap<object, string>();

  constructor(manager: CapabilityManager, meter: JobMeter, options: ExecutorOptions) {
    this.#manager = manager;
    this.#meter = meter;
    this.#options = options;
  }

  facts(instanceId: string): InstanceFacts {
    const { spec } = this.#manager.instance(instanceId);
    const { code } = spec.definition.manifest;
    return {
      instanceId,
      capability: code.name,
      version: code.version,
      isEnabled: this.#manager.isEnabled(instanceId),
      configHash: spec.configHash,
      resourceConfigHash: this.#resourceHash(spec.config, code.config_schema),
      codeHash: code.code_hash ?? null,
      maxConcurrentRequests: spec.maxConcurrentRequests,
    };
  }

  check(
    instanceId: string,
    target: CallTarget,
    kwargs: Readonly<Record<string, unknown>>,
  ): { isStreaming: boolean } {
    const { spec } = this.#manager.instance(instanceId);
    checkKwargs(spec, target, kwargs);
    return { isStreaming: streams(spec, { target, wantsChunks: true }) };
  }

  inputs(instanceId: string, target: CallTarget): CallInputs {
    const { spec } = this.#manager.instance(instanceId);
    const { code } = spec.definition.manifest;
    return {
      config: spec.config,
      configSchema: code.config_schema ?? null,
      inputSchema: findAction(spec, target)?.input_schema ?? null,
    };
  }

  async execute(
    call: ExecutableCall,
    events: ExecutionEvents,
    signal: AbortSignal,
  ): Promise<ExecutionOutcome> {
    const instance = this.#manager.instance(call.instanceId);
    const attempt = join(this.#options.work, call.jobId, String(call.attempt));
    const redacted = redactEvents(events, this.#manager.redact);
    try {
      const isReady = instance.state === "ready";
      const startedAt = performance.now();
      const begun = await instance.begin(call, redacted, signal);
      redacted.sent({
        workerSessionId: begun.worker.sessionId,
        loadMs: isReady ? 0 : performance.now() - startedAt,
      });
      return await this.#measured({ ...begun, call, instance, attempt, signal });
    } catch (error) {
      throw redactError(error, this.#manager.redact);
    } finally {
      await framesRead();
      instance.calls.end(call.jobId);
      await this.#removeWork(call.jobId);
    }
  }

  watchInstances(listener: (change: InstanceChange) => void): () => void {
    return this.#manager.onInstanceChange((instance) => {
      listener({
        instanceId: instance.spec.instanceId,
        capability: instance.spec.definition.name,
        state: SCHEDULER_STATES[instance.state],
        gpuUuid: instance.gpuUuid,
        maxConcurrentRequests: instance.spec.maxConcurrentRequests,
      });
    });
  }

  surface(instanceId: string, declaration?: InstanceDeclaration): InstanceSurface | undefined {
    const name = declaration?.capability ?? this.#capabilityOf(instanceId);
    const definition = this.#manager.definitions.get(name);
    if (definition === undefined) return undefined;
    const { code } = definition.manifest;
    const bound = this.#manager.instances.get(instanceId)?.spec.adapters ?? [];
    return compact({
      capability: code.name,
      enabled: this.#manager.isEnabled(instanceId),
      actions: code.actions,
      tasks: tasksOf(code.tasks, bound),
    });
  }

  names(): readonly string[] {
    return [...this.#manager.definitions.keys()];
  }

  declare(instanceId: string, declaration: InstanceDeclaration): void {
    this.#manager.declare({ instanceId, ...declaration });
  }

  async release(instanceId: string, level: string): Promise<void> {
    const instance = this.#manager.instances.get(instanceId);
    // Nobody is asked to sleep who is about to end, or to start anew, by himself.
    if (instance?.state !== "ready") return;
    const isReleased = level !== "unload" && (await this.#askToRelease(instance, level));
    if (!isReleased) await instance.stop(`evicted, level ${level}`);
  }

  async end(instanceId: string, reason: string): Promise<void> {
    await this.#manager.instances.get(instanceId)?.kill(reason);
  }

  /** False if the worker has no way to do it. */
  async #askToRelease(instance: CapabilityInstance, level: string): Promise<boolean> {
    const { connection } = await instance.ensureReady();
    const limitMs = this.#options.releaseTimeoutMs ?? RELEASE_TIMEOUT_MS;
    const name = instance.spec.instanceId;
    const late = new CjmError(
      "CAPABILITY_TIMEOUT",
      `The worker of "${name}" had not released its memory after ${limitMs} ms`,
    );
    const hung = new AbortController();
    const timer = setTimeout(() => {
      hung.abort(late);
    }, limitMs);
    try {
      const options = { signal: hung.signal };
      const { value } = await connection.post("/release", { level }, statusReplySchema, options);
      return value.status !== "not_supported";
    } catch (error) {
      // A worker of the original has no such endpoint.
      if (error instanceof CjmError && error.code === "METHOD_NOT_SUPPORTED") return false;
      throw redactError(error, this.#manager.redact);
    } finally {
      clearTimeout(timer);
    }
  }

  #resourceHash(
    config: Readonly<Record<string, unknown>>,
    schema: Readonly<Record<string, unknown>> | null | undefined,
  ): string {
    let hash = this.#resourceHashes.get(config);
    if (hash === undefined) {
      hash = resourceConfigHash(config, schema);
      this.#resourceHashes.set(config, hash);
    }
    return hash;
  }

  /** Most calls return no files, so that their worker has made no folder. */
  async #removeWork(jobId: string): Promise<void> {
    const folder = join(this.#options.work, jobId);
    if (existsSync(folder)) await rm(folder, { recursive: true, force: true });
  }

  #capabilityOf(instanceId: string): string {
    return this.#manager.instances.get(instanceId)?.spec.definition.name ?? instanceId;
  }

  async #measured(running: RunningCall): Promise<ExecutionOutcome> {
    const { call, worker, active } = running;
    this.#meter.begin(call.jobId, call.instanceId, worker.connection.worker.pid);
    let peaks: ExecutionOutcome["peaks"] | undefined;
    try {
      const answer = await this.#send(running);
      const folders = { attempt: running.attempt, files: this.#options.files };
      const result = await adoptOutputs(answer, folders);
      peaks = withReported(await this.#meter.end(call.jobId), active);
      const { redact } = this.#manager;
      const usage = Object.fromEntries(
        Object.entries(active.usage).map(([unit, amount]) => [redact(unit), amount]),
      );
      return { result, usage, workerSessionId: worker.sessionId, peaks };
    } finally {
      if (peaks === undefined) {
        active.events.measured(withReported(await this.#meter.end(call.jobId), active));
      }
    }
  }

  async #send({ call, instance, channel, active, attempt, signal }: RunningCall): Promise<unknown> {
    const askToCancel = (): void => {
      // Best effort: if the worker does not listen, the queue ends it by force.
      channel.cancel(call.jobId).catch(() => undefined);
    };
    signal.addEventListener("abort", askToCancel, { once: true });
    if (signal.aborted) askToCancel();
    const { target, kwargs } = call;
    const envelope = {
      ...call.identity,
      job_id: call.jobId,
      capability_instance_id: call.instanceId,
      output_folder: attempt,
      ...(call.timeoutMs !== undefined && { deadline_ms: call.timeoutMs }),
    };
    try {
      const request = { target, kwargs, envelope };
      if (!streams(instance.spec, call)) {
        return await channel.send(request, active);
      }
      let chunks = 0;
      for await (const chunk of channel.stream(request, active)) {
        chunks += 1;
        await active.events.chunk(chunk);
      }
      return { chunks };
    } finally {
      signal.removeEventListener("abort", askToCancel);
    }
  }
}

/** Where a worker of the original does not say what streams, whoever calls it does. */
function streams(
  spec: CallSurface,
  { target, wantsChunks }: Pick<ExecutableCall, "target" | "wantsChunks">,
): boolean {
  const action = findAction(spec, target);
  if (action !== undefined) return action.streaming;
  return wantsChunks === true && target.task === undefined;
}

/**
 * Resolves when the frames are read that the worker sent before its answer. They are in the kernel by
 * then, but on another socket, whose turn may come after the answer's: two turns of the event loop
 * have one whole look at every socket between them.
 */
async function framesRead(): Promise<void> {
  await setImmediate();
  await setImmediate();
}

interface RunningCall extends BegunCall {
  readonly call: ExecutableCall;
  readonly instance: CapabilityInstance;
  readonly attempt: string;
  readonly signal: AbortSignal;
}

/** What a call reports is journaled and shown: no secret may pass. Chunks are results. */
function redactEvents(events: ExecutionEvents, redact: (text: string) => string): ExecutionEvents {
  return {
    sent: (session) => {
      events.sent(session);
    },
    progress: (fraction, message) => {
      events.progress(fraction, redact(message));
    },
    account: (eventType, payload) => {
      events.account(eventType, redactRecord(payload, redact));
    },
    chunk: (value) => events.chunk(value),
    measured: (peaks) => {
      events.measured(peaks);
    },
  };
}

const SCHEDULER_STATES = {
  absent: "absent",
  starting: "loading",
  ready: "ready",
  stopping: "releasing",
} as const satisfies Record<CapabilityInstance["state"], InstanceChange["state"]>;

function withReported(
  measured: ExecutionOutcome["peaks"],
  { hostPeakMb }: ActiveCall,
): ExecutionOutcome["peaks"] {
  if (hostPeakMb === null) return measured;
  return { ...measured, hostMb: Math.max(measured.hostMb ?? 0, hostPeakMb) };
}

/** The config without the fields whose schema says that they cannot change what a job needs. */
function resourceConfigHash(
  config: Readonly<Record<string, unknown>>,
  schema: Readonly<Record<string, unknown>> | null | undefined,
): string {
  const properties = isRecord(schema?.["properties"]) ? schema["properties"] : {};
  const relevant = Object.entries(config).filter(([key]) => {
    const property = properties[key];
    return !isRecord(property) || property["resource"] !== false;
  });
  return hashCanonical(Object.fromEntries(relevant));
}
