import type { z } from "zod";
import type { Envelope, EnvVarSpecInput, LogLevel } from "../protocol/index.ts";

/** Writes log records that carry the identity of the call they were written in. */
export type WorkerLogger = Readonly<
  Record<Exclude<LogLevel, "critical">, (message: string, error?: unknown) => void>
>;

/** What a worker knows whether or not a call runs. */
export interface WorkerContext {
  readonly log: WorkerLogger;
  /** Folder of this capability, kept between runs; the host creates it. */
  readonly dataFolder: string;
  /** Aborted when nobody waits any more: by a cancel, a deadline, or a closed connection. */
  readonly signal: AbortSignal;
  /**
   * Reports a fraction from 0 to 1, or -1 where the amount of work is unknown. At most ten frames a
   * second reach the host, the last one always; it keeps the host's stall detector quiet.
   */
  readonly progress: (fraction: number, message?: string) => void;
  /** Repeats `message` with the elapsed seconds twice a second while `work` runs. */
  readonly heartbeat: <T>(message: string, work: () => Promise<T>) => Promise<T>;
}

/** Largest use of memory that the tool's own allocator knows of. */
export interface MemoryPeak {
  readonly gpuPeakMb?: number;
  readonly hostPeakMb?: number;
}

/** One running call; its functions may be taken out of it. */
export interface Call<Config = unknown> extends WorkerContext {
  readonly config: Config;
  readonly envelope: Envelope;
  /** Folder for files this call returns by reference; made when it is first asked for. */
  readonly outputFolder: string;
  /** Adds to the measured usage of this call; units are summed and never interpreted. */
  readonly usage: (units: Readonly<Record<string, number>>) => void;
  /** Adds a row to the journal: references and hashes, never content. */
  readonly account: (eventType: string, payload?: Readonly<Record<string, unknown>>) => void;
  /** Reports the tool's own allocator peak, where it knows one. */
  readonly memory: (peak: MemoryPeak) => void;
  /** Runs another action of this tool, one that answers once, inside this call. */
  readonly invoke: (action: string, input: unknown) => Promise<unknown>;
}

interface ActionCommon {
  readonly description?: string;
  /** The action `execute` means when none is named. */
  readonly default?: boolean;
  /** Same inputs, same outputs: the host may answer from its cache. */
  readonly repeatable?: boolean;
}

/** An action that answers once. */
export interface UnaryAction<
  Config,
  Input extends z.ZodType,
  Output extends z.ZodType,
> extends ActionCommon {
  readonly input: Input;
  readonly output: Output;
  readonly streaming?: false;
  handler(input: z.output<Input>, call: Call<Config>): Promise<z.input<Output>> | z.input<Output>;
}

/** An action that answers chunk by chunk; `output` is the schema of one chunk. */
export interface StreamingAction<
  Config,
  Input extends z.ZodType,
  Output extends z.ZodType,
> extends ActionCommon {
  readonly input: Input;
  readonly output: Output;
  readonly streaming: true;
  handler(input: z.output<Input>, call: Call<Config>): AsyncIterable<z.input<Output>>;
}

export type Action<Config = never> =
  UnaryAction<Config, z.ZodType, z.ZodType> | StreamingAction<Config, z.ZodType, z.ZodType>;

/** A method of a task adapter: answers once; `call.invoke` reaches the tool's own actions. */
export type TaskMethod = UnaryAction<never, z.ZodType, z.ZodType>;

/**
 * Names the type of one action, so that its handler's input and output are inferred. Write
 * `call: Call<z.output<typeof config>>` for a typed `call.config`.
 */
export function defineAction<Input extends z.ZodType, Output extends z.ZodType, Config = unknown>(
  action: UnaryAction<Config, Input, Output>,
): UnaryAction<Config, Input, Output>;
export function defineAction<Input extends z.ZodType, Output extends z.ZodType, Config = unknown>(
  action: StreamingAction<Config, Input, Output>,
): StreamingAction<Config, Input, Output>;
export function defineAction(action: unknown): unknown {
  return action;
}

/** A typed task implementation bound to this tool inside its worker. */
export interface TaskAdapter {
  readonly task: string;
  /** Actions the tool must have; the host checks it against the structural surface. */
  readonly requires?: readonly string[];
  readonly methods: Readonly<Record<string, TaskMethod>>;
}

export function defineTaskAdapter(adapter: TaskAdapter): TaskAdapter {
  return adapter;
}

/** One live choice for a config field. */
export interface ConfigOption {
  readonly value: unknown;
  readonly label: string;
  readonly metadata?: Readonly<Record<string, unknown>>;
}
export interface FieldOptions {
  readonly options: readonly ConfigOption[];
  readonly constraints?: Readonly<Record<string, unknown>>;
}

/** What a release left behind, so that the host can check it by measurement. */
export interface ReleaseReply {
  /** What is still held, in words; empty when nothing is. */
  readonly held?: string;
  readonly freedMb?: number;
}

/** A tool: identity, configuration, actions and the hooks of its life cycle. */
export interface Capability<Schema extends z.ZodObject = z.ZodObject> {
  readonly name: string;
  readonly version: string;
  readonly description?: string;
  /** Use `z.strictObject`; a field marked `.meta({ reloadTrigger: "model" })` fires `release.model` when it changes. */
  readonly config: Schema;
  readonly actions: Readonly<Record<string, Action>>;
  readonly tasks?: readonly TaskAdapter[];
  /** Calls the host may have running at once. @default 1 */
  readonly maxConcurrentRequests?: number;
  readonly resources?: {
    readonly requires_gpu?: boolean;
    readonly platforms?: readonly string[];
    readonly accelerators?: readonly string[];
  };
  readonly workerEnv?: readonly EnvVarSpecInput[];
  /** Applies a config: first, and again after each change, once its releases have run. */
  initialize?(config: z.output<Schema>, context: WorkerContext): Promise<void> | void;
  /** Acquires heavy resources now; may be called more than once. */
  prefetch?(context: WorkerContext): Promise<void> | void;
  readonly release?: Readonly<Record<string, () => Promise<void> | void>>;
  /** Gives memory back but stays alive. */
  releaseMemory?(level: string): Promise<ReleaseReply> | ReleaseReply;
  configOptions?(): Promise<Readonly<Record<string, FieldOptions>>>;
  onDisable?(): Promise<void> | void;
  onEnable?(): Promise<void> | void;
  cleanup?(): Promise<void> | void;
  /** Present in a monitor; answers the original's monitor protocol. */
  readonly monitor?: {
    getSystemStatus(): Promise<Readonly<Record<string, unknown>>>;
    listProcesses(): Promise<readonly Readonly<Record<string, unknown>>[]>;
  };
}

/** Describes a capability; give it to `serve`. */
export function defineCapability<Schema extends z.ZodObject>(
  capability: Capability<Schema>,
): Capability<Schema> {
  return capability;
}
