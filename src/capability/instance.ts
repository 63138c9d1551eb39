import { z } from "zod";
import { CjmError, toError } from "../errors/index.ts";
import { describeExit } from "../process/index.ts";
import { statusReplySchema } from "../protocol/index.ts";
import type { ExecutionEvents } from "../queue/executor.ts";
import { within } from "../util/wait.ts";
import { type ActiveCall, ActiveCalls } from "./active-calls.ts";
import { type CallChannel, OwnChannel } from "./channel.ts";
import { InstanceLog } from "./instance-log.ts";
import type { InstanceSpec } from "./instance-spec.ts";
import { OriginalChannel } from "./original/channel.ts";
import { redactError } from "./redaction.ts";
import type { InstanceServices } from "./services.ts";
import type { StallLedger } from "./stall-watch.ts";
import {
  callHook,
  type HookCall,
  type ReadyWorker,
  recordDeath,
  type SessionParts,
  startSession,
} from "./worker-session.ts";
import { isOriginal } from "./worker-spec.ts";

/** A call that has its worker; end it with `calls.end`. */
export interface BegunCall {
  readonly worker: ReadyWorker;
  readonly channel: CallChannel;
  readonly active: ActiveCall;
}

export interface InstanceOptions {
  readonly services: InstanceServices;
  readonly stalls: StallLedger;
  /** Called after every change of the instance's state; it must not throw. */
  readonly onChange: (instance: CapabilityInstance) => void;
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

const optionsSchema = z.record(z.string(), z.unknown());

/**
 * One loaded capability with one effective config. It alone decides when its worker starts and
 * ends: callers say `ensureReady()`, never "if stopped then start".
 */
export class CapabilityInstance implements AsyncDisposable {
  readonly calls = new ActiveCalls();
  readonly log: InstanceLog;
  readonly #options: InstanceOptions;
  #spec: InstanceSpec;
  #state: State = { kind: "absent" };
  #gpuUuid: string | null = null;
  /** While set, no call begins: something works on the instance alone. */
  #gate: Promise<unknown> | undefined;
  #hooks: Promise<void> = Promise.resolve();
  #drift: readonly string[] = [];

  constructor(spec: InstanceSpec, options: InstanceOptions) {
    this.#spec = spec;
    this.#options = options;
    this.log = new InstanceLog(() => this.#spec, options.services, this.calls);
  }

  get spec(): InstanceSpec {
    return this.#spec;
  }

  /** The GPU its worker was started on; null without a worker, or started without one. */
  get gpuUuid(): string | null {
    return this.#gpuUuid;
  }

  get state(): State["kind"] {
    return this.#state.kind;
  }

  /** What its last worker said of itself that the manifest says otherwise. */
  get drift(): readonly string[] {
    return this.#drift;
  }

  /** Pid of the worker's tree as the host sees it; null without a worker. */
  get pid(): number | null {
    return this.#state.kind === "ready" ? this.#state.worker.connection.worker.pid : null;
  }

  /**
   * The running worker, started and initialized if need be; many callers share one start.
   * `gpuUuid` is the GPU a new worker gets to see; one that runs already keeps its own.
   *
   * @throws what {@link startSession} throws, without secrets.
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

  /** Brings the worker to ready and begins a call of it, as one step for everybody else. */
  async begin(
    call: { readonly jobId: string; readonly gpuUuid: string | null },
    events: ExecutionEvents,
    signal: AbortSignal,
  ): Promise<BegunCall> {
    for (;;) {
      await this.#gate;
      const worker = await abortable(this.ensureReady(call.gpuUuid), signal);
      const isCurrent = this.#state.kind === "ready" && this.#state.worker === worker;
      if (this.#gate !== undefined || !isCurrent) continue;
      const active = this.calls.begin(call.jobId, events);
      return { worker, channel: this.#channel(worker), active };
    }
  }

  /**
   * Makes `next` the instance's config: the worker applies it and fires the release triggers of
   * what changed, once no call runs. A worker that cannot is replaced by a new one.
   *
   * @throws what the worker answers; the config is then unchanged.
   */
  async reconfigure(next: InstanceSpec): Promise<void> {
    await this.#alone(async () => {
      if (this.#state.kind !== "ready") {
        this.#spec = next;
        return;
      }
      const body = { old_config: this.#spec.config, new_config: next.config };
      const { status } = await this.#hook(this.#state.worker, { path: "/reconfigure", body });
      this.#spec = next;
      if (status === "not_supported") await this.#respawn("its worker cannot be reconfigured");
    });
  }

  /** Ends the worker once no call runs, and starts one of `next`: new config, secrets, environment. */
  async respawn(reason: string, next: InstanceSpec = this.#spec): Promise<void> {
    await this.#alone(async () => {
      const gpuUuid = this.#gpuUuid;
      await this.stop(reason);
      this.#spec = next;
      await this.ensureReady(gpuUuid);
    });
  }

  /** Acquires heavy resources now. @throws {CjmError} `PREFETCH_STALLED`, or what the worker answers. */
  async prefetch(): Promise<string> {
    const worker = await this.ensureReady();
    return (await this.#hook(worker, { path: "/prefetch", body: {} })).status;
  }

  /** Calls a hook when no call runs any more; a failure is noted. Hooks run in the order asked for. */
  deferHook(path: "/on_disable" | "/on_enable", isStillWanted: () => boolean): void {
    this.#hooks = this.#hooks.then(async () => {
      try {
        await this.calls.idle();
        if (this.#state.kind !== "ready" || !isStillWanted()) return;
        await this.#hook(this.#state.worker, { path, body: {} });
      } catch (error) {
        this.log.note(`${path} failed: ${toError(error).message}`);
      }
    });
  }

  /** Resolves when every hook that was asked for has run or has been dropped. */
  async hooksSettled(): Promise<void> {
    await this.#hooks;
  }

  /** Live choices for config fields; none where the worker has none or fails. */
  async configOptions(): Promise<Readonly<Record<string, unknown>>> {
    try {
      const { connection } = await this.ensureReady();
      return (await connection.get("/config_options", optionsSchema)).value;
    } catch (error) {
      this.log.note(`config options are not to be had: ${toError(error).message}`);
      return {};
    }
  }

  /** Asks the worker to clean up, then ends its whole tree. Safe to call in every state. */
  async stop(reason: string): Promise<void> {
    await this.#end(reason, async (worker) => {
      const { cleanupTimeoutMs, terminateGraceMs } = this.#options.services.limits;
      const bye = worker.connection.post("/cleanup", {}, statusReplySchema);
      await within(bye, cleanupTimeoutMs).catch((error: unknown) => {
        this.log.note(`cleanup failed: ${toError(error).message}`);
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

  #channel({ connection }: ReadyWorker): CallChannel {
    return isOriginal(this.#spec.definition)
      ? new OriginalChannel(connection)
      : new OwnChannel(connection);
  }

  /** Runs `work` when no call runs; calls that come meanwhile wait for it. */
  async #alone(work: () => Promise<void>): Promise<void> {
    while (this.#gate !== undefined) await this.#gate;
    const done = Promise.withResolvers<void>();
    this.#gate = done.promise;
    try {
      await this.calls.idle();
      await work();
    } finally {
      this.#gate = undefined;
      done.resolve();
    }
  }

  async #respawn(reason: string): Promise<void> {
    const gpuUuid = this.#gpuUuid;
    await this.stop(reason);
    await this.ensureReady(gpuUuid);
  }

  get #parts(): SessionParts {
    const { services, stalls } = this.#options;
    return { spec: this.#spec, log: this.log, services, stalls };
  }

  async #hook(worker: ReadyWorker, call: HookCall): ReturnType<typeof callHook> {
    try {
      return await callHook(worker, this.#parts, call);
    } catch (error) {
      throw redactError(error, this.#options.services.redact);
    }
  }

  #change(state: State): void {
    this.#state = state;
    if (state.kind === "absent") this.#gpuUuid = null;
    this.#options.onChange(this);
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
    await recordDeath(state.worker, this.log, await state.worker.connection.worker.exited, reason);
  }

  async #start(stop: AbortSignal): Promise<ReadyWorker> {
    try {
      const worker = await startSession(this.#parts, this.#gpuUuid, stop);
      this.#drift = worker.drift;
      this.#change({ kind: "ready", worker });
      void this.#watch(worker);
      return worker;
    } catch (error) {
      if (this.#state.kind === "starting") this.#change({ kind: "absent" });
      throw redactError(error, this.#options.services.redact);
    }
  }

  /** A worker that ends by itself leaves the instance absent; the next call starts another. */
  async #watch(worker: ReadyWorker): Promise<void> {
    const exit = await worker.connection.worker.exited;
    if (this.#state.kind !== "ready" || this.#state.worker !== worker) return;
    this.#change({ kind: "absent" });
    await worker.connection.kill();
    this.log.note(`worker ended ${describeExit(exit)}`, worker.sessionId);
    const phase = exit.isEndedByHost ? "ended by the host" : "ended by itself";
    await recordDeath(worker, this.log, exit, phase);
  }
}

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
