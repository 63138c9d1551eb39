import type { InstanceDeclaration, InstanceSurface } from "../composition/index.ts";
import type { Envelope } from "../protocol/index.ts";

/** What a call addresses inside an instance. Neither named means the default action. */
export interface CallTarget {
  readonly action?: string | undefined;
  readonly task?: string | undefined;
  readonly method?: string | undefined;
}

/** What the queue must know of an instance to admit its jobs; reading it starts nothing. */
export interface InstanceFacts {
  readonly instanceId: string;
  readonly capability: string;
  readonly version: string;
  readonly isEnabled: boolean;
  readonly configHash: string;
  /** Hash of the config fields that can change what a job needs. */
  readonly resourceConfigHash: string;
  readonly codeHash: string | null;
  readonly maxConcurrentRequests: number;
}

/** What goes into a call, with the schemas that say which strings are files. */
export interface CallInputs {
  readonly config: Readonly<Record<string, unknown>>;
  readonly configSchema: Readonly<Record<string, unknown>> | null;
  readonly inputSchema: Readonly<Record<string, unknown>> | null;
}

/** One attempt at one job. */
export interface ExecutableCall {
  readonly jobId: string;
  readonly instanceId: string;
  readonly target: CallTarget;
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly attempt: number;
  /** The GPU the instance must be on, or be started on; null where none is needed or known. */
  readonly gpuUuid: string | null;
  readonly identity: Pick<Envelope, "run_id" | "composition_id" | "node_id" | "actor" | "control">;
  /** Milliseconds the call may take, once the instance is ready. */
  readonly timeoutMs?: number | undefined;
  /** Somebody reads its chunks: a worker that does not declare its actions is asked to stream. */
  readonly wantsChunks?: boolean | undefined;
}

/** What happens while a call runs. Every method returns at once and never throws. */
export interface ExecutionEvents {
  /** The instance is ready and the call goes out now. */
  sent(session: {
    readonly workerSessionId: string;
    /** What bringing the instance to ready took; 0 if it was ready. */
    readonly loadMs: number;
  }): void;
  progress(fraction: number, message: string): void;
  account(eventType: string, payload: Readonly<Record<string, unknown>>): void;
  /** One chunk of a streaming call; the worker waits until it is taken. */
  chunk(value: unknown): Promise<void>;
  /** What a call that gives no result was measured to use. */
  measured(peaks: ExecutionOutcome["peaks"]): void;
}

/** What a completed call leaves beside its result. */
export interface ExecutionOutcome {
  readonly result: unknown;
  readonly usage: Readonly<Record<string, number>>;
  readonly workerSessionId: string;
  /** Measured peaks; null where nothing measured. */
  readonly peaks: {
    readonly gpuMb: Readonly<Record<string, number>>;
    readonly hostMb: number | null;
    readonly cpuPercent: number | null;
    /** False if another call ran in the same worker meanwhile. */
    readonly isAlone: boolean;
  };
}

/** An instance's worker came, went, or is on its way. */
export interface InstanceChange {
  readonly instanceId: string;
  readonly capability: string;
  readonly state: "absent" | "loading" | "ready" | "releasing";
  readonly gpuUuid: string | null;
  readonly maxConcurrentRequests: number;
}

/** What the queue needs from the outside; `capability/` implements it, tests use a fake. */
export interface Executor {
  /** @throws {CjmError} `CAPABILITY_UNKNOWN` if no instance and no capability has this name. */
  facts(instanceId: string): InstanceFacts;
  /** Whether the call can stream. @throws {CjmError} `ACTION_UNKNOWN`, or `CAPABILITY_INPUT` naming every bad field. */
  check(
    instanceId: string,
    target: CallTarget,
    kwargs: Readonly<Record<string, unknown>>,
  ): { readonly isStreaming: boolean };
  /** What decides about the result of a call beside its kwargs. */
  inputs(instanceId: string, target: CallTarget): CallInputs;
  /**
   * Brings the instance to ready, runs the call and adopts the files it returns.
   *
   * An abort asks the worker to end this call; the promise then rejects with
   * `CAPABILITY_CANCELLED`, or resolves if the result was already computed.
   */
  execute(
    call: ExecutableCall,
    events: ExecutionEvents,
    signal: AbortSignal,
  ): Promise<ExecutionOutcome>;
  /** Calls `listener` after every change of an instance's state. Returns the unsubscribe. */
  watchInstances(listener: (change: InstanceChange) => void): () => void;
  /** What a composition's validation asks about an instance; undefined if there is none such. */
  surface(instanceId: string, declaration?: InstanceDeclaration): InstanceSurface | undefined;
  /** Every capability there is. */
  names(): readonly string[];
  /** Makes a declared instance known; starts nothing. @throws {CjmError} naming every bad config key. */
  declare(instanceId: string, declaration: InstanceDeclaration): void;
  /**
   * Asks an idle worker to give memory back. At level `unload`, or where it has no way to do that, its
   * worker is ended. Settles within a limit whatever the worker does; an instance without a worker has
   * nothing to release.
   *
   * @throws {CjmError} if the worker refuses, hangs or dies: it is to be ended.
   */
  release(instanceId: string, level: string): Promise<void>;
  /** Ends the instance's worker, if it has one, and its whole tree; the next call starts a new one. */
  end(instanceId: string, reason: string): Promise<void>;
}
