import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
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
import { checkKwargs, findAction } from "./call-check.ts";
import type { CapabilityInstance, ReadyWorker } from "./instance.ts";
import type { CapabilityManager } from "./manager.ts";
import { adoptOutputs } from "./output-files.ts";

/** Measures what a job's worker really used; `host.ts` connects it to the telemetry. */
export interface JobMeter {
  begin(jobId: string, instanceId: string, pid: number): void;
  end(jobId: string): Promise<ExecutionOutcome["peaks"]>;
}

export interface ExecutorFolders {
  /** Attempt folders: `<work>/<job>/<attempt>/`. */
  readonly work: string;
  /** Adopted files. */
  readonly files: string;
}

/** Runs the queue's jobs on the manager's instances. */
export class CapabilityExecutor implements Executor {
  readonly #manager: CapabilityManager;
  readonly #meter: JobMeter;
  readonly #folders: ExecutorFolders;
  /** By config object: hashing it for every job would cost more than the rest of its admission. */
  readonly #resourceHashes = new WeakMap<object, string>();

  constructor(manager: CapabilityManager, meter: JobMeter, folders: ExecutorFolders) {
    this.#manager = manager;
    this.#meter = meter;
    this.#folders = folders;
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
    const { code } = this.#manager.instance(instanceId).spec.definition.manifest;
    checkKwargs(code, target, kwargs);
    return { isStreaming: findAction(code, target)?.streaming === true };
  }

  inputs(instanceId: string, target: CallTarget): CallInputs {
    const { spec } = this.#manager.instance(instanceId);
    const { code } = spec.definition.manifest;
    return {
      config: spec.config,
      configSchema: code.config_schema ?? null,
      inputSchema: findAction(code, target)?.input_schema ?? null,
    };
  }

  async execute(
    call: ExecutableCall,
    events: ExecutionEvents,
    signal: AbortSignal,
  ): Promise<ExecutionOutcome> {
    const instance = this.#manager.instance(call.instanceId);
    const isReady = instance.state === "ready";
    const startedAt = performance.now();
    const worker = await abortable(instance.ensureReady(call.gpuUuid), signal);
    const attempt = join(this.#folders.work, call.jobId, String(call.attempt));
    await mkdir(attempt, { recursive: true });
    const active = instance.calls.begin(call.jobId, events);
    this.#meter.begin(call.jobId, call.instanceId, worker.connection.worker.pid);
    let peaks: ExecutionOutcome["peaks"] | undefined;
    try {
      events.sent({
        workerSessionId: worker.sessionId,
        loadMs: isReady ? 0 : performance.now() - startedAt,
      });
      const answer = await this.#send({ call, instance, worker, attempt, events, signal });
      const result = await adoptOutputs(answer, { attempt, files: this.#folders.files });
      peaks = withReported(await this.#meter.end(call.jobId), active);
      return { result, usage: active.usage, workerSessionId: worker.sessionId, peaks };
    } finally {
      if (peaks === undefined) {
        events.measured(withReported(await this.#meter.end(call.jobId), active));
      }
      instance.calls.end(call.jobId);
      await rm(join(this.#folders.work, call.jobId), { recursive: true, force: true });
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
    return compact({
      capability: code.name,
      enabled: this.#manager.isEnabled(instanceId),
      actions: code.actions,
      tasks: code.tasks,
    });
  }

  declare(instanceId: string, declaration: InstanceDeclaration): void {
    this.#manager.declare({ instanceId, ...declaration });
  }

  async release(instanceId: string, level: string): Promise<void> {
    const instance = this.#manager.instance(instanceId);
    if (instance.state !== "ready") return;
    const { connection } = await instance.ensureReady();
    await connection.post("/release", { level }, statusReplySchema);
  }

  async end(instanceId: string, reason: string): Promise<void> {
    await this.#manager.instance(instanceId).kill(reason);
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

  #capabilityOf(instanceId: string): string {
    return this.#manager.instances.get(instanceId)?.spec.definition.name ?? instanceId;
  }

  async #send(running: {
    readonly call: ExecutableCall;
    readonly instance: CapabilityInstance;
    readonly worker: ReadyWorker;
    readonly attempt: string;
    readonly events: ExecutionEvents;
    readonly signal: AbortSignal;
  }): Promise<unknown> {
    const { call, instance, worker, events, signal } = running;
    const { connection } = worker;
    const askToCancel = (): void => {
      // Best effort: if the worker does not listen, the queue ends it by force.
      connection.post("/cancel", { job_id: call.jobId }, statusReplySchema).catch(() => undefined);
    };
    signal.addEventListener("abort", askToCancel, { once: true });
    if (signal.aborted) askToCancel();
    const envelope = {
      ...call.identity,
      job_id: call.jobId,
      capability_instance_id: call.instanceId,
      output_folder: running.attempt,
      ...(call.timeoutMs !== undefined && { deadline_ms: call.timeoutMs }),
    };
    try {
      const { task, method, action } = call.target;
      if (task !== undefined) {
        const body = { task, method, kwargs: call.kwargs, envelope };
        return (await connection.post("/task", body, z.unknown())).value;
      }
      const kwargs = action === undefined ? call.kwargs : { ...call.kwargs, action };
      const body = { args: [], kwargs, envelope };
      const { code } = instance.spec.definition.manifest;
      if (findAction(code, call.target)?.streaming !== true) {
        return (await connection.post("/execute", body, z.unknown())).value;
      }
      let chunks = 0;
      for await (const chunk of connection.stream("/execute_stream", body)) {
        chunks += 1;
        await events.chunk(chunk);
      }
      return { chunks };
    } finally {
      signal.removeEventListener("abort", askToCancel);
    }
  }
}

const SCHEDULER_STATES = {
  absent: "absent",
  starting: "loading",
  ready: "ready",
  stopping: "releasing",
} as const satisfies Record<CapabilityInstance["state"], InstanceChange["state"]>;

/** Waits for `promise` unless the call is cancelled first; what was begun goes on without it. */
async function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  const stopped = Promise.withResolvers<never>();
  const onAbort = (): void => {
    stopped.reject(new CjmError("CAPABILITY_CANCELLED", "Cancelled before the call was sent"));
  };
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    return await Promise.race([promise, stopped.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
    promise.catch(() => undefined);
  }
}

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
