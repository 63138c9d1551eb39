import { rm, symlink, mkdir } from "node:fs/promises";
import { basename, join } from "node:path";
import type { LlamaContext, LlamaModel, Token } from "node-llama-cpp";
import { CjmError } from "cjm-substrate/worker";
import type { EngineContext, LoadCall, ResolvedAdapter } from "../engine.ts";
import { convertLora } from "../gguf/convert-lora.ts";
import { readGguf, type GgufHeader } from "../gguf/read.ts";
import { hashFile } from "../hash-book.ts";
import { asAdapterFault, errnoOf, refuse } from "../fault.ts";
import type { ProfileBook } from "../profile-book.ts";
import { checkAdapter } from "./adapter-check.ts";
import type { Native } from "./library.ts";
import { logprobsAfter } from "./logprobs.ts";
import type { LlamaCppOptions } from "./options.ts";
import { chatTemplateOf, type ChatTemplate } from "./prompt.ts";
import { Slots } from "./slots.ts";
import { measureThreads } from "./threads.ts";

const CONTEXT_DEFAULT = 4096;
/** Both types are safe everywhere; the library calls the choice experimental for the quantised ones. */
const EXACT = {
  flashAttention: false,
  experimentalKvCacheKeyType: "F32",
  experimentalKvCacheValueType: "F32",
} as const;
const PROBE = "The quick brown fox";

/** The model with one set of adapters, ready to generate. */
export interface Ready {
  readonly key: string;
  readonly context: LlamaContext;
  readonly slots: Slots;
  /** Largest change of a log-probability by the adapters; null for the bare model. */
  readonly effect: number | null;
  /** Milliseconds that a token of a prompt takes, as last measured. */
  prefillPace: number;
  lastUsed: number;
}

/** The weights, loaded; contexts are made of it. */
export class LoadedModel {
  readonly native: Native;
  readonly model: LlamaModel;
  readonly header: GgufHeader;
  readonly sha256: string;
  readonly template: ChatTemplate | undefined;
  readonly threads: number;
  readonly contextSize: number;
  readonly #options: LlamaCppOptions;
  readonly #engine: EngineContext;
  readonly #profiles: ProfileBook;
  #probe: Promise<Float64Array> | undefined;

  private constructor(parts: {
    readonly native: Native;
    readonly model: LlamaModel;
    readonly header: GgufHeader;
    readonly sha256: string;
    readonly template: ChatTemplate | undefined;
    readonly threads: number;
    readonly options: LlamaCppOptions;
    readonly engine: EngineContext;
    readonly profiles: ProfileBook;
  }) {
    this.native = parts.native;
    this.model = parts.model;
    this.header = parts.header;
    this.sha256 = parts.sha256;
    this.template = parts.template;
    this.threads = parts.threads;
    this.#options = parts.options;
    this.#engine = parts.engine;
    this.#profiles = parts.profiles;
    const most = parts.model.trainContextSize;
    this.contextSize = parts.options.contextSize ?? Math.min(most, CONTEXT_DEFAULT);
  }

  /** @throws {CjmError} `model_missing`, `model_invalid`, `memory`, or the signal's reason */
  static async load(
    native: Native,
    parts: {
      readonly options: LlamaCppOptions;
      readonly engine: EngineContext;
      readonly profiles: ProfileBook;
    },
    { signal, progress }: LoadCall,
  ): Promise<LoadedModel> {
    const { options, engine, profiles } = parts;
    const header = await readGguf(options.modelPath);
    progress(0, "hashing the model");
    const sha256 = await hashFile(options.modelPath, engine.dataFolder, {
      signal,
      progress: (share) => progress(share * 0.3, "hashing the model"),
    });
    progress(0.3, "loading the model");
    const model = await loadWeights(native, options, {
      signal,
      progress: (share) => progress(0.3 + share * 0.6, "loading the model"),
    });
    try {
      const measure = async (): Promise<number> => {
        progress(0.9, "measuring threads");
        return await measureThreads(model, signal);
      };
      const threads = options.threads ?? (await profiles.threads(sha256, measure));
      const template = await chatTemplateOf(model);
      return new LoadedModel({ native, model, header, sha256, template, threads, ...parts });
    } catch (error) {
      await model.dispose();
      throw error;
    }
  }

  /** Makes a context with these adapters. @throws {CjmError} `adapter_mismatch`, `memory` */
  async open(adapters: readonly ResolvedAdapter[], { signal, progress }: LoadCall): Promise<Ready> {
    const key = keyOf(adapters);
    progress(-1, adapters.length === 0 ? "making a context" : "preparing adapters");
    const files = await this.#files(adapters, signal);
    const started = performance.now();
    const before = process.memoryUsage.rss();
    const context = await this.#context({ sequences: this.#options.slots, files, signal });
    try {
      const slots = new Slots(context, this.#options.slots);
      const effect = adapters.length === 0 ? null : await this.#effect(slots, signal);
      this.#profiles.record({
        model_sha256: this.sha256,
        quantization: this.model.typeDescription,
        context_size: context.contextSize,
        slots: this.#options.slots,
        adapters: key,
        threads: this.threads,
        load_ms: Math.round(performance.now() - started),
        rss_mb: Math.round((process.memoryUsage.rss() - before) / 1e6),
        total_rss_mb: Math.round(process.memoryUsage.rss() / 1e6),
      });
      return { key, context, slots, effect, prefillPace: 1, lastUsed: performance.now() };
    } catch (error) {
      await context.dispose();
      throw error;
    }
  }

  /**
   * A context of one sequence that computes in F32 throughout. What generates rounds keys and values
   * to F16, which moves log-probabilities by up to a hundredth.
   */
  async openExact(
    adapters: readonly ResolvedAdapter[],
    contextSize: number,
    signal: AbortSignal,
  ): Promise<LlamaContext> {
    const files = await this.#files(adapters, signal);
    return await this.#context({ sequences: 1, files, signal, contextSize, isExact: true });
  }

  async dispose(): Promise<void> {
    await this.model.dispose();
  }

  async #context(parts: {
    readonly sequences: number;
    readonly files: readonly { readonly filePath: string; readonly scale: number }[];
    readonly signal: AbortSignal;
    readonly contextSize?: number;
    readonly isExact?: boolean;
  }): Promise<LlamaContext> {
    const { sequences, files, signal, contextSize = this.contextSize } = parts;
    try {
      return await this.model.createContext({
        sequences,
        contextSize,
        threads: this.threads,
        createSignal: signal,
        failedCreationRemedy: false,
        ...(parts.isExact === true ? EXACT : {}),
        ...(files.length === 0 ? {} : { lora: { adapters: [...files] } }),
      });
    } catch (error) {
      signal.throwIfAborted();
      if (files.length > 0) {
        const names = files.map(({ filePath }) => basename(filePath)).join(", ");
        throw refuse("adapter_invalid", `llama.cpp refuses the adapter ${names}`, { cause: error });
      }
      throw memoryFault("a context", error);
    }
  }

  async #files(
    adapters: readonly ResolvedAdapter[],
    signal: AbortSignal,
  ): Promise<{ readonly filePath: string; readonly scale: number }[]> {
    const files: { filePath: string; scale: number }[] = [];
    for (const adapter of adapters) {
      files.push({ filePath: await this.#adapterFile(adapter, signal), scale: adapter.scale });
    }
    return files;
  }

  /** A path that is the content: the library knows an adapter by its path and never reads it again. */
  async #adapterFile(adapter: ResolvedAdapter, signal: AbortSignal): Promise<string> {
    const folder = join(this.#engine.dataFolder, "adapters");
    await mkdir(folder, { recursive: true });
    const name = adapter.sha256.replace(":", "-");
    if (adapter.format === "gguf") {
      await checkAdapter(adapter, this.header);
      const link = join(folder, `${name}.link.gguf`);
      await rm(link, { force: true });
      await symlink(adapter.path, link);
      return link;
    }
    const converted = join(folder, `${name}-${this.sha256.slice(7, 23)}.gguf`);
    try {
      await readGguf(converted);
    } catch {
      await this.#convert(adapter.path, converted, signal);
    }
    return converted;
  }

  async #convert(from: string, to: string, signal: AbortSignal): Promise<void> {
    try {
      await convertLora(from, to, this.header, { signal });
    } catch (error) {
      throw asAdapterFault(from, error);
    }
  }

  async #effect(slots: Slots, signal: AbortSignal): Promise<number> {
    this.#probe ??= this.#probeBare(signal);
    const bare = await this.#probe.catch((error: unknown) => {
      this.#probe = undefined;
      throw error;
    });
    const tokens = this.#probeTokens();
    const sequence = await slots.acquire(tokens, signal);
    try {
      const adapted = await logprobsAfter(sequence, tokens);
      await sequence.clearHistory();
      let largest = 0;
      for (const [i, value] of adapted.entries()) {
        const change = Math.abs(value - (bare[i] ?? value));
        if (Number.isFinite(change)) largest = Math.max(largest, change);
      }
      return largest;
    } finally {
      slots.release(sequence);
    }
  }

  async #probeBare(signal: AbortSignal): Promise<Float64Array> {
    const context = await this.#context({ sequences: 1, files: [], signal, contextSize: 64 });
    try {
      return await logprobsAfter(context.getSequence(), this.#probeTokens());
    } finally {
      await context.dispose();
    }
  }

  #probeTokens(): Token[] {
    const { bos } = this.model.tokens;
    return [...(bos === null ? [] : [bos]), ...this.model.tokenize(PROBE)];
  }
}

export function keyOf(adapters: readonly ResolvedAdapter[]): string {
  return adapters.map(({ sha256, scale }) => `${sha256}@${scale}`).join(",");
}

async function loadWeights(
  { llama }: Native,
  { modelPath, gpuLayers }: LlamaCppOptions,
  {
    signal,
    progress,
  }: { readonly signal: AbortSignal; readonly progress: (share: number) => void },
): Promise<LlamaModel> {
  try {
    return await llama.loadModel({
      modelPath,
      loadSignal: signal,
      onLoadProgress: progress,
      ...(gpuLayers === undefined ? {} : { gpuLayers }),
    });
  } catch (error) {
    signal.throwIfAborted();
    if (isMemory(error)) throw memoryFault("the model", error);
    const why = error instanceof Error ? error.message : String(error);
    throw refuse("model_invalid", `llama.cpp cannot load ${modelPath}: ${why}`, { cause: error });
  }
}

function isMemory(error: unknown): boolean {
  return error instanceof Error && /memory|VRAM|alloc/iu.test(`${error.name} ${error.message}`);
}

function memoryFault(what: string, cause: unknown): CjmError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new CjmError("CAPABILITY_RESOURCE", `There is no memory for ${what}: ${why}`, {
    cause,
    details: { reason: "memory", errno: errnoOf(cause) },
  });
}
