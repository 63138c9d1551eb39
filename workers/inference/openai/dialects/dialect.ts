import type {
  EngineCall,
  LoadCall,
  ReleaseEvidence,
  ResolvedAdapter,
  TextInput,
  TextRequest,
} from "../../engine.ts";
import type { ParameterName } from "../../task/parameters.ts";
import type {
  Embeddings,
  FinishReason,
  Logprob,
  ModelCard,
  Score,
  Usage,
} from "../../task/schemas.ts";
import type { Address, OpenAiConfig, ServerKind } from "../config.ts";
import type { HttpClient } from "../http/client.ts";

/** Text as it arrives; `logprobs` one per token where they were asked for. */
export interface Piece {
  readonly text: string;
  readonly logprobs?: readonly Logprob[];
}

/** What a server said when it had generated everything. */
export interface Outcome {
  readonly finish: FinishReason;
  readonly stopSequence: string | null;
  readonly usage: Usage;
  /** The model that answered, as the server names it. */
  readonly model: string;
  /** Content of the model, where the server tells it. */
  readonly modelSha256: string | null;
  readonly seed: number | null;
  readonly truncatedTokens: number;
}

/** What a server tells of itself; undefined where it does not. */
export interface ServerFacts {
  readonly version: string | undefined;
  readonly model: string;
  readonly contextLength: number | undefined;
  readonly slots: number | undefined;
}

/** What a dialect speaks with. */
export interface Link {
  readonly http: HttpClient;
  readonly config: OpenAiConfig;
  readonly address: Address;
  readonly log: (message: string) => void;
  /** VRAM that the server holds, in MB; undefined where nothing can measure it. */
  readonly measureVramMb: () => Promise<number | undefined>;
}

/** A value that this kind of server cannot honour, although it knows the parameter. */
export interface Refused {
  readonly field: string;
  readonly why: string;
}

/** Log-probabilities of the likeliest next tokens after a fixed text, by token. */
export type Distribution = ReadonlyMap<string, number>;

/** What differs from one kind of server to the next. The engine around it does the rest. */
export interface Dialect {
  readonly kind: ServerKind;
  /** Parameters that this kind promises. */
  readonly parameters: ReadonlySet<ParameterName>;
  readonly releaseLevels: readonly string[];
  refuse(request: TextRequest): readonly Refused[];
  /** Asks the server what it is. Throws `server_down` where nobody answers, loads nothing. */
  connect(signal: AbortSignal): Promise<ServerFacts>;
  generate(
    request: TextRequest,
    facts: ServerFacts,
    call: EngineCall,
  ): AsyncGenerator<Piece, Outcome, void>;
  /** Makes the model answer fast: load, pull, wake. */
  prefetch(facts: ServerFacts, call: LoadCall): Promise<void>;
  card(facts: ServerFacts, signal: AbortSignal): Promise<Partial<ModelCard>>;
  /** Gives memory back; nothing of ours runs meanwhile. */
  release(level: string, facts: ServerFacts): Promise<ReleaseEvidence>;
  /** Undoes a release that left the server there, before the next call and at the end. */
  wake(facts: ServerFacts): Promise<void>;
  isAsleep(): boolean;
  countTokens(input: TextInput, facts: ServerFacts, signal: AbortSignal): Promise<number>;
  embed?(
    input: readonly string[],
    options: { readonly normalize: boolean },
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Embeddings>;
  score?(
    request: {
      readonly prompt: string;
      readonly top: number;
      readonly adapters: readonly ResolvedAdapter[];
    },
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Score>;
  readonly adapters?: AdapterSupport;
}

/** A server's LoRA adapters. The engine loads each content once, however many ask. */
export interface AdapterSupport {
  /** Makes the server hold it; throws `adapter_mismatch` where it does not fit. */
  load(adapter: ResolvedAdapter, facts: ServerFacts, signal: AbortSignal): Promise<void>;
  /** Says what stays held, empty for nothing. */
  unload(sha256: string, facts: ServerFacts, signal: AbortSignal): Promise<string>;
  /** The distribution on a fixed text with these adapters, or none; undefined where it cannot tell. */
  probe(
    adapters: readonly ResolvedAdapter[],
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Distribution | undefined>;
  /** Whether a failed call means that the server has lost its adapters, as after a restart. */
  isForgotten(error: unknown): boolean;
}
