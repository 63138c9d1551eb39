import type { WorkerLogger } from "cjm-substrate/worker";
import type { ParameterName, Parameters } from "./task/parameters.ts";
import type {
  AdapterInfo,
  AppliedAdapter,
  Delta,
  Embeddings,
  Generation,
  Message,
  ModelCard,
  Score,
} from "./task/schemas.ts";

/** An adapter that was found on this machine and whose content is what its hash says. */
export interface ResolvedAdapter extends AdapterInfo {
  readonly scale: number;
}

export type TextInput =
  | { readonly kind: "prompt"; readonly prompt: string }
  | { readonly kind: "chat"; readonly messages: readonly Message[] };

/** One generation. `parameters.adapters` is resolved into `adapters`; use only these. */
export interface TextRequest {
  readonly input: TextInput;
  readonly parameters: Omit<Parameters, "adapters" | "stop">;
  /** Always a list; empty when none was given. */
  readonly stop: readonly string[];
  readonly adapters: readonly ResolvedAdapter[];
  readonly overflow: "refuse" | "truncate";
}

/** What an engine is given for one call. */
export interface EngineCall {
  /**
   * Aborted when nobody waits any more. The engine throws `signal.reason` and has freed the call's
   * slot within 250 ms.
   */
  readonly signal: AbortSignal;
}

export interface LoadCall extends EngineCall {
  /** A fraction from 0 to 1, or -1 where the amount of work is unknown. */
  readonly progress: (fraction: number, message: string) => void;
}

export interface ReleaseEvidence {
  /** What is still held, in words; empty when nothing is. */
  readonly held: string;
  /** Measured, not computed; absent where nothing can be measured. */
  readonly freedMb?: number;
}

/** What the engine holds at this moment. */
export interface EngineStatus {
  readonly state: "unloaded" | "loading" | "loaded" | "asleep";
  /** Calls that generate now, and calls that wait for a slot. */
  readonly active: number;
  readonly waiting: number;
  readonly slots: number;
  /** Ids of the adapters held in memory. */
  readonly adapters: readonly string[];
  /** Loads of a (model, adapters) key since the start. */
  readonly loads: number;
}

/** What an engine is made with: `create<Name>Engine(config, context)`, which does no I/O. */
export interface EngineContext {
  readonly log: WorkerLogger;
  /** Folder of the worker, kept between runs. */
  readonly dataFolder: string;
}

/**
 * One kind of engine behind task `text-generation`.
 *
 * An engine loads on the first call that needs it, however many come at once: one load per key. It
 * keeps no adapter names; every request carries what it needs. Errors are `CjmError`:
 *
 * | code                    | details.reason                                                          |
 * | ----------------------- | ----------------------------------------------------------------------- |
 * | CAPABILITY_INPUT        | parameter_unsupported (fieldsInvalid names each), context_overflow,      |
 * |                         | grammar_invalid, chat_template_missing, adapter_unknown,                 |
 * |                         | adapter_mismatch, adapter_hash, model_invalid, model_missing            |
 * | METHOD_NOT_SUPPORTED    | embed, score or adapters where the engine has none                      |
 * | SETUP_REQUIRED          | engine_missing: the native package or the server program is not there   |
 * | CAPABILITY_RESOURCE     | memory                                                                   |
 * | CAPABILITY_TRANSIENT    | server_down, server_busy, engine_crashed                                 |
 * | CAPABILITY_TIMEOUT      | server_hangs                                                             |
 * | CAPABILITY_ERROR        | server_lied (said yes, and a measurement says no), server_error          |
 */
export interface Engine {
  /** As in `evidence.engine`. */
  readonly name: string;
  readonly version: string;
  /** Parameters it honours. The worker refuses any other by name before the engine is asked. */
  readonly parameters: ReadonlySet<ParameterName>;

  /**
   * Yields text as it is made and returns the whole result. Leaving the loop early (`return`) ends
   * the generation as an abort does. `text` of the result is the sum of the deltas.
   */
  stream(request: TextRequest, call: EngineCall): AsyncGenerator<Delta, Generation, void>;

  embed?(
    input: readonly string[],
    options: { readonly normalize: boolean },
    call: EngineCall,
  ): Promise<Embeddings>;
  /** Log-probabilities of a text, to at least 1e-4. */
  score?(
    request: {
      readonly prompt: string;
      readonly top: number;
      readonly adapters: readonly ResolvedAdapter[];
    },
    call: EngineCall,
  ): Promise<Score>;
  countTokens(input: TextInput, call: EngineCall): Promise<number>;

  /**
   * Makes an adapter ready and measures what it does to the model: the largest change of a
   * next-token log-probability on a probe prompt at scale 1, null where it cannot be measured.
   *
   * @throws CAPABILITY_INPUT adapter_mismatch for an adapter of another base
   */
  loadAdapter?(adapter: ResolvedAdapter, call: LoadCall): Promise<number | null>;
  /** After it the base answers as before. Says what memory stays held, empty for none. */
  unloadAdapter?(adapter: AppliedAdapter): Promise<string>;

  /** What is known without loading. */
  card(): Promise<ModelCard>;
  /** Loads now; a second call while one loads joins it. */
  prefetch(call: LoadCall): Promise<void>;
  /** The levels that `release` knows, mildest first, e.g. ["sleep", "unload"]. */
  readonly releaseLevels: readonly string[];
  /** Gives memory back once running calls have ended; the next call loads again. */
  release(level: string): Promise<ReleaseEvidence>;
  status(): EngineStatus;
  /** Ends everything; running calls fail. */
  close(): Promise<void>;
}
