import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type DiscoveredManifest, workerCommand } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import {
  buildWorkerEnvironment,
  describeExit,
  socketPath,
  WorkerConnection,
  type WorkerExit,
  type WorkerSink,
  type WorkerSpec,
} from "../process/index.ts";
import { type Cage, statusReplySchema, type WorkerFrame } from "../protocol/index.ts";
import type { JournalEntry } from "../store/index.ts";
import { randomHex } from "../util/ids.ts";
import { within } from "../util/wait.ts";
import { ActiveCalls } from "./active-calls.ts";
import type { InstanceServices } from "./services.ts";

/** A worker that has been initialized with the instance's config. */
export interface ReadyWorker {
  readonly connection: WorkerConnection;
  readonly sessionId: string;
}

export interface InstanceSpec {
  readonly instanceId: string;
  readonly definition: DiscoveredManifest;
  readonly config: Readonly<Record<string, unknown>>;
  readonly configHash: string;
  readonly maxConcurrentRequests: number;
}

type State =
  | { readonly kind: "absent" }
  | {
      readonly kind: "starting";
      readonly promise: Promise<ReadyWorker>;
      readonly stop: AbortController;
    }
  | { readonly kind: "ready"; readonly worker: ReadyWorker }
  | { readonly kind: "stopping"; readonly promise: Promise<void> };

/**
 * One loaded capability with one effective config. It alone decides when its worker starts and
 * ends: callers say `ensureReady()`, never "if stopped then start".
 */
export class CapabilityInstance implements AsyncDisposable {
  readonly spec: InstanceSpec;
  readonly calls = new ActiveCalls();
  readonly #services: InstanceServices;
  readonly #onChange: (instance: CapabilityInstance) => void;
  #state: State = { kind: "absent" };
  #gpuUuid: string | null = null;

  /** `onChange` is called after every change of {@link state}; it must not throw. */
  constructor(
    spec: InstanceSpec,
    services: InstanceServices,
    onChange: (instance: CapabilityInstance) => void,
  ) {
    this.spec = spec;
    this.#services = services;
    this.#onChange = onChange;
  }

  /** The GPU its worker was started on; null without a worker, or started without one. */
  get gpuUuid(): string | null {
    return this.#gpuUuid;
  }

  get state(): State["kind"] {
    return this.#state.kind;
  }

  /** Pid of the worker's tree as the host sees it; null without a worker. */
  get pid(): number | null {
    return this.#state.kind === "ready" ? this.#state.worker.connection.worker.pid : null;
  }

  /**
   * The running worker, started and initialized if need be; many callers share one start.
   * `gpuUuid` is the GPU a new worker gets to see; one that runs already keeps its own.
   *
   * @throws what {@link WorkerConnection.start} and the worker's `/initialize` throw.
   */
  async ensureReady(gpuUuid: string | null = null): Promise<ReadyWorker> {
    for (;;) {
      switch (this.#state.kind) {
        case "ready":
          return this.#state.worker;
        case "starting":
          return await this.#state.promise;
        case "stopping":
          await this.#state.promise;
          break;
        case "absent": {
          const stop = new AbortController();
          this.#gpuUuid = gpuUuid;
          const promise = this.#start(stop.signal);
          this.#change({ kind: "starting", promise, stop });
          break;
        }
      }
    }
  }

  /** Asks the worker to clean up, then ends its whole tree. Safe to call in every state. */
  async stop(reason: string): Promise<void> {
    await this.#end(reason, async (worker) => {
      const { cleanupTimeoutMs, terminateGraceMs } = this.#services.limits;
      const bye = worker.connection.post("/cleanup", {}, statusReplySchema);
      await within(bye, cleanupTimeoutMs).catch((error: unknown) => {
        this.#note(`cleanup failed: ${error instanceof Error ? error.message : String(error)}`);
      });
      await worker.connection.terminate(terminateGraceMs);
    });
  }

  /** Ends the worker's whole tree at once. */
  async kill(reason: string): Promise<void> {
    await this.#end(reason, async (worker) => {
      await worker.connection.kill();
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop("disposed");
  }

  #change(state: State): void {
    this.#state = state;
    if (state.kind === "absent") this.#gpuUuid = null;
    this.#onChange(this);
  }

  async #end(reason: string, how: (worker: ReadyWorker) => Promise<void>): Promise<void> {
    const state = this.#state;
    if (state.kind === "absent") return;
    if (state.kind === "stopping") {
      await state.promise;
      return;
    }
    const promise = this.#endState(state, reason, how);
    this.#change({ kind: "stopping", promise });
    try {
      await promise;
    } finally {
      this.#change({ kind: "absent" });
    }
  }

  async #endState(
    state: Extract<State, { kind: "starting" | "ready" }>,
    reason: string,
    how: (worker: ReadyWorker) => Promise<void>,
  ): Promise<void> {
    if (state.kind === "starting") {
      state.stop.abort(
        new CjmError(
          "WORKER_EXITED",
          `Start of "${this.spec.instanceId}" was called off: ${reason}`,
        ),
      );
      // Its own callers see why; here only its end matters.
      await state.promise.catch(() => undefined);
      return;
    }
    await how(state.worker);
    await this.#died(state.worker, await state.worker.connection.worker.exited, reason);
  }

  async #start(stop: AbortSignal): Promise<ReadyWorker> {
    const startedAt = performance.now();
    try {
      const spec = await this.#workerSpec();
      const connection = await WorkerConnection.start(spec, this.#sink(spec.sessionId), stop);
      const worker = { connection, sessionId: spec.sessionId };
      try {
        await this.#services.journal([this.#spawned(spec, connection)]);
        await connection.post("/initialize", this.spec.config, statusReplySchema, { signal: stop });
        const waitSeconds = (performance.now() - startedAt) / 1_000;
        await this.#services.journal(this.#readyRows(spec.sessionId, waitSeconds));
        stop.throwIfAborted();
      } catch (error) {
        await this.#died(worker, await connection.kill(), "failed to initialize");
        throw error;
      }
      this.#change({ kind: "ready", worker });
      void this.#watch(worker);
      return worker;
    } catch (error) {
      if (this.#state.kind === "starting") this.#change({ kind: "absent" });
      throw error;
    }
  }

  /** A worker that ends by itself leaves the instance absent; the next call starts another. */
  async #watch(worker: ReadyWorker): Promise<void> {
    const exit = await worker.connection.worker.exited;
    if (this.#state.kind !== "ready" || this.#state.worker !== worker) return;
    this.#change({ kind: "absent" });
    await worker.connection.kill();
    await this.#died(worker, exit, "ended by itself");
  }

  async #died(worker: ReadyWorker, exit: WorkerExit, phase: string): Promise<void> {
    const { code, signal } = exit;
    this.#note(`worker ${worker.sessionId} ended ${describeExit(exit)} (${phase})`);
    await this.#services
      .journal([this.#entry("worker_died", worker.sessionId, { phase, returncode: code, signal })])
      .catch((error: unknown) => {
        this.#note(`worker_died could not be journaled: ${String(error)}`);
      });
  }

  async #workerSpec(): Promise<WorkerSpec> {
    const { definition } = this.spec;
    const { name, manifest } = definition;
    const command = workerCommand(definition);
    if (command === undefined) {
      throw new CjmError(
        "CAPABILITY_NOT_INSTALLED",
        `Capability "${name}" has no environment yet; run: cjm-ctl install-all --only ${name}`,
      );
    }
    const services = this.#services;
    const ownFolder = join(services.capabilityDataDir, name);
    await mkdir(ownFolder, { recursive: true });
    const socket = socketPath(services.runFolder, `w${randomHex(6)}.sock`);
    const sessionId = services.sessions.next();
    const declared = await services.workerEnvironment(definition);
    const env = buildWorkerEnvironment({
      host: process.env,
      pass: services.passEnv,
      install: manifest.install.env_vars,
      declared,
      protocol: {
        CJM_PROTOCOL: "1",
        CJM_LISTEN: `unix:${socket}`,
        CJM_LOG_LEVEL: services.logLevel,
        CJM_CAPABILITY_DATA_DIR: services.capabilityDataDir,
        CAPABILITY_DATA_DIR: ownFolder,
        // AMD's runtime reads the CUDA name too.
        ...(this.#gpuUuid !== null && { CUDA_VISIBLE_DEVICES: this.#gpuUuid }),
        ...(services.modelsDir !== undefined && { CJM_MODELS_DIR: services.modelsDir }),
      },
    });
    return {
      capability: name,
      sessionId,
      command,
      cwd: manifest.install.env_folder ?? services.packageRoot,
      env,
      cage: cageFor(manifest.install.cage, services.cage),
      startTimeoutMs: services.limits.startTimeoutMs,
    };
  }

  #sink(sessionId: string): WorkerSink {
    const { diagnostics } = this.#services;
    return {
      frame: (frame) => {
        this.#frame(frame, sessionId);
      },
      output: (stream, line) => {
        diagnostics.appendChunk({ content: line, stream, workerSessionId: sessionId });
      },
      note: (message) => {
        this.#note(message, sessionId);
      },
    };
  }

  #frame(frame: WorkerFrame, sessionId: string): void {
    if (frame.type === "log") {
      this.#services.diagnostics.appendRecord({
        message: frame.message,
        level: frame.level,
        loggerName: frame.logger,
        ts: frame.ts,
        workerSessionId: sessionId,
        jobId: frame.job_id ?? null,
        excText: frame.exc ?? null,
      });
    } else if (frame.type === "warning") {
      this.#note(frame.message, sessionId);
    } else if (frame.type === "dropped") {
      this.#note(`${frame.n} log records were dropped by the worker`, sessionId);
    } else {
      this.calls.route(frame);
    }
  }

  #note(message: string, sessionId: string | null = null): void {
    this.#services.diagnostics.appendRecord({
      message: `${this.spec.instanceId}: ${message}`,
      level: "warning",
      loggerName: "cjm.host",
      ts: new Date().toISOString(),
      workerSessionId: sessionId,
      jobId: null,
      excText: null,
    });
  }

  #spawned(spec: WorkerSpec, connection: WorkerConnection): JournalEntry {
    return this.#entry("worker_spawned", spec.sessionId, {
      pid: connection.worker.pid,
      address: connection.worker.ready.address,
      command: spec.command,
      version: connection.worker.ready.version,
      env_overlay_keys: Object.keys(spec.env).sort(),
      cage: spec.cage,
    });
  }

  #readyRows(sessionId: string, waitSeconds: number): JournalEntry[] {
    return [
      this.#entry("config_applied", sessionId, {
        phase: "initialize",
        config_keys: Object.keys(this.spec.config).sort(),
      }),
      this.#entry("worker_ready", sessionId, { wait_seconds: waitSeconds }),
    ];
  }

  #entry(
    eventType: string,
    workerSessionId: string,
    payload: Readonly<Record<string, unknown>>,
  ): JournalEntry {
    return {
      eventType,
      capabilityInstanceId: this.spec.instanceId,
      capabilityName: this.spec.definition.name,
      configHash: this.spec.configHash,
      workerSessionId,
      payload,
    };
  }
}

function cageFor(wanted: "auto" | "group", strongest: Cage): Cage {
  return wanted === "group" ? "group" : strongest;
}
