import type { LlamaEmbeddingContext } from "node-llama-cpp";
import type {
  Engine,
  EngineCall,
  EngineContext,
  EngineStatus,
  LoadCall,
  ReleaseEvidence,
  ResolvedAdapter,
  TextInput,
  TextRequest,
} from "../engine.ts";
import { refuse } from "../fault.ts";
import { cardOf } from "../gguf/card.ts";
import { ProfileBook } from "../profile-book.ts";
import { PARAMETER_NAMES, type ParameterName } from "../task/parameters.ts";
import type {
  AppliedAdapter,
  Delta,
  Embeddings,
  Generation,
  ModelCard,
  Score,
} from "../task/schemas.ts";
import { generate } from "./generate.ts";
import { GrammarBook } from "./grammar.ts";
import { openNative } from "./library.ts";
import { keyOf, LoadedModel, type Ready } from "./model.ts";
import type { LlamaCppOptions } from "./options.ts";
import { tokensOf } from "./prompt.ts";
import { score } from "./score.ts";
import { ReadySets } from "./ready-sets.ts";
import { Shared } from "./shared.ts";

/** GGUF models in this process. */
export class LlamaCppEngine implements Engine {
  readonly name = "llama-cpp";
  readonly parameters: ReadonlySet<ParameterName> = new Set(PARAMETER_NAMES);
  readonly releaseLevels = ["sleep", "unload"];
  readonly profiles: ProfileBook;
  readonly #options: LlamaCppOptions;
  readonly #context: EngineContext;
  readonly #grammars = new GrammarBook();
  readonly #model: Shared<LoadedModel>;
  readonly #sets: ReadySets;
  readonly #embedder: Shared<LlamaEmbeddingContext>;
  #card: Promise<ModelCard> | undefined;
  #version = "";
  #running = 0;
  #idle: PromiseWithResolvers<void> | undefined;
  #releasing: Promise<unknown> = Promise.resolve();
  #scoring: Promise<unknown> = Promise.resolve();
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(options: LlamaCppOptions, context: EngineContext) {
    this.#options = options;
    this.#context = context;
    this.profiles = new ProfileBook(context.dataFolder, context.log);
    this.#model = new Shared(async (call) => {
      const native = await openNative(options.gpu, context.log);
      this.#version = native.version;
      const parts = { options, engine: context, profiles: this.profiles };
      return await LoadedModel.load(native, parts, call);
    });
    this.#sets = new ReadySets(options.adapterSets + 1);
    this.#embedder = new Shared(async (call) => {
      const { model, threads, contextSize } = await this.#model.get(call);
      return await model.createEmbeddingContext({
        contextSize,
        threads,
        createSignal: call.signal,
      });
    });
  }

  get version(): string {
    return this.#version;
  }

  async *stream(request: TextRequest, call: EngineCall): AsyncGenerator<Delta, Generation, void> {
    const started = performance.now();
    const leave = await this.#enter(call.signal);
    try {
      const loaded = await this.#model.get(quiet(call));
      const grammar = await this.#grammars.of(loaded.native, request);
      const tokens = tokensOf(loaded.model, loaded.template, request.input);
      if (tokens.length === 0) {
        throw refuse("context_overflow", "The prompt has no token", { fields: ["prompt"] });
      }
      const ready = await this.#enterSet(loaded, request.adapters, quiet(call));
      try {
        const about = { modelId: this.#options.modelId, engineVersion: this.#version };
        const site = { loaded, ready, grammar, tokens, started, ...about };
        return yield* generate(site, request, call);
      } finally {
        ready.slots.leave();
      }
    } finally {
      leave();
    }
  }

  async score(
    request: Parameters<NonNullable<Engine["score"]>>[0],
    call: EngineCall,
  ): Promise<Score> {
    return await this.#within(call, async (loaded) => {
      const input = { kind: "prompt", prompt: request.prompt } as const;
      const tokens = tokensOf(loaded.model, undefined, input);
      // One context at a time: each takes memory of its own.
      const scored = this.#scoring.then(() => score(loaded, tokens, request, call.signal));
      this.#scoring = scored.catch(() => undefined);
      return await scored;
    });
  }

  async embed(
    input: readonly string[],
    { normalize }: { readonly normalize: boolean },
    call: EngineCall,
  ): Promise<Embeddings> {
    return await this.#within(call, async ({ model, sha256, contextSize }) => {
      const embedder = await this.#embedder.get(quiet(call));
      const embeddings: number[][] = [];
      let used = 0;
      for (const text of input) {
        call.signal.throwIfAborted();
        const length = embedder.calculateInputLength(text);
        if (length > contextSize) {
          throw refuse("context_overflow", `${length} tokens exceed the context of ${contextSize}`);
        }
        used += length;
        const { vector } = await embedder.getEmbeddingFor(text);
        embeddings.push(normalize ? unit(vector) : [...vector]);
      }
      const dimensions = model.embeddingVectorSize;
      return { embeddings, dimensions, usage: { prompt_tokens: used }, model_sha256: sha256 };
    });
  }

  async countTokens(input: TextInput, call: EngineCall): Promise<number> {
    return await this.#within(call, ({ model, template }) =>
      Promise.resolve(tokensOf(model, template, input).length),
    );
  }

  async loadAdapter(adapter: ResolvedAdapter, call: LoadCall): Promise<number | null> {
    const leave = await this.#enter(call.signal);
    try {
      const loaded = await this.#model.get(call);
      return await this.#using(loaded, [{ ...adapter, scale: 1 }], call, ({ effect }) => effect);
    } finally {
      leave();
    }
  }

  async unloadAdapter({ sha256 }: AppliedAdapter): Promise<string> {
    await this.#sets.drop((key) => key.includes(sha256));
    return "the adapter's weights, until the model is unloaded";
  }

  async card(): Promise<ModelCard> {
    this.#card ??= cardOf(this.#options.modelPath, this.#options.modelId);
    try {
      return { ...(await this.#card), sha256: this.#model.now?.sha256 ?? null };
    } catch (error) {
      this.#card = undefined;
      throw error;
    }
  }

  async prefetch(call: LoadCall): Promise<void> {
    const leave = await this.#enter(call.signal);
    try {
      const loaded = await this.#model.get(call);
      await this.#using(loaded, [], call, () => undefined);
      call.progress(1, "ready");
    } finally {
      leave();
    }
  }

  /** `sleep` keeps the weights and gives the contexts back; `unload` keeps nothing. */
  async release(level: string): Promise<ReleaseEvidence> {
    const released = this.#releasing.then(async () => {
      await this.#drained();
      const before = process.memoryUsage.rss();
      await this.#sets.drop(() => true);
      await this.#embedder.clear((embedder) => embedder.dispose());
      if (level !== "sleep") await this.#model.clear((loaded) => loaded.dispose());
      const freedMb = Math.max(0, Math.round((before - process.memoryUsage.rss()) / 1e6));
      const held = level === "sleep" && this.#model.now !== undefined ? "the model's weights" : "";
      return { held, freedMb };
    });
    this.#releasing = released.catch(() => undefined);
    return await released;
  }

  status(): EngineStatus {
    const { active, waiting } = this.#sets.load();
    const isLoaded = this.#model.now !== undefined;
    const state = this.#model.isPending ? "loading" : isLoaded ? this.#stateOfSets() : "unloaded";
    return {
      state,
      active,
      waiting,
      slots: this.#options.slots,
      adapters: [...this.#sets.keys()].filter((key) => key !== ""),
      loads: this.#sets.loads,
    };
  }

  async close(): Promise<void> {
    clearTimeout(this.#idleTimer);
    await this.#sets.drop(() => true, true);
    await this.#embedder.clear((embedder) => embedder.dispose());
    await this.#model.clear((loaded) => loaded.dispose());
  }

  #stateOfSets(): "asleep" | "loaded" {
    return this.#sets.size === 0 ? "asleep" : "loaded";
  }

  /** Runs `work` with a context of these adapters, which stays until it is over. */
  async #using<Result>(
    loaded: LoadedModel,
    adapters: readonly ResolvedAdapter[],
    call: LoadCall,
    work: (ready: Ready) => Promise<Result> | Result,
  ): Promise<Result> {
    const ready = await this.#enterSet(loaded, adapters, call);
    try {
      return await work(ready);
    } finally {
      ready.slots.leave();
    }
  }

  async #enterSet(
    loaded: LoadedModel,
    adapters: readonly ResolvedAdapter[],
    call: LoadCall,
  ): Promise<Ready> {
    const open = async (call: LoadCall): Promise<Ready> => await loaded.open(adapters, call);
    return await this.#sets.enter(keyOf(adapters), call, open);
  }

  async #within<Result>(
    call: EngineCall,
    work: (loaded: LoadedModel) => Promise<Result>,
  ): Promise<Result> {
    const leave = await this.#enter(call.signal);
    try {
      return await work(await this.#model.get(quiet(call)));
    } finally {
      leave();
    }
  }

  /** Waits while memory is given back, and keeps it until the returned function is called. */
  async #enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted();
    await this.#releasing;
    clearTimeout(this.#idleTimer);
    this.#running += 1;
    this.#idle ??= Promise.withResolvers();
    return () => this.#leave();
  }

  #leave(): void {
    this.#running -= 1;
    if (this.#running > 0) return;
    this.#idle?.resolve();
    this.#idle = undefined;
    const { idleUnloadSeconds } = this.#options;
    if (idleUnloadSeconds === 0) return;
    this.#idleTimer = setTimeout(() => {
      this.release("unload").catch((error: unknown) =>
        this.#context.log.error("unloading an idle model failed", error),
      );
    }, idleUnloadSeconds * 1000).unref();
  }

  async #drained(): Promise<void> {
    while (this.#running > 0) await this.#idle?.promise;
  }
}

/** A load that a call causes reports to nobody; the call's own progress is its text. */
function quiet({ signal }: EngineCall): LoadCall {
  return { signal, progress: () => undefined };
}

function unit(vector: readonly number[]): number[] {
  const length = Math.hypot(...vector);
  return length === 0 ? [...vector] : vector.map((value) => value / length);
}
