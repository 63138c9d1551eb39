import type {
  EngineCall,
  LoadCall,
  ReleaseEvidence,
  TextInput,
  TextRequest,
} from "../../engine.ts";
import type { ParameterName } from "../../task/parameters.ts";
import type { Embeddings, ModelCard } from "../../task/schemas.ts";
import { failure, quote } from "../failure.ts";
import { malformed, type LineStream } from "../http/client.ts";
import { parseJson } from "../http/refusal.ts";
import { readServerEvents } from "../http/sse.ts";
import type { Dialect, Link, Outcome, Piece, Refused, ServerFacts } from "./dialect.ts";
import { embedByOpenAi, notOffered } from "./generic.ts";
import { LlamaAdapters, type LoraScale } from "./llama-adapters.ts";
import { fitPrompt, LlamaControl } from "./llama-control.ts";
import {
  chunkSchema,
  lastChunkSchema,
  llamaLogprobs,
  type LlamaChunk,
  type LlamaLast,
} from "./llama-wire.ts";
import { streamError } from "./openai-stream.ts";
import { parametersOf, refusedValues } from "./kinds.ts";
import { present, samplingOf, seedOf } from "./sampling.ts";
import { checkSettings } from "./settings-check.ts";

/** The task's order of filters; the server's own order has more of them and may be configured. */
const SAMPLERS = ["penalties", "top_k", "top_p", "min_p", "temperature"];

/** llama.cpp's HTTP server, by its own API: it echoes what it applied, so that can be checked. */
export class LlamaServerDialect implements Dialect {
  readonly kind = "llama-server";
  readonly releaseLevels: readonly string[] = [];
  readonly parameters: ReadonlySet<ParameterName>;
  readonly adapters: LlamaAdapters;
  readonly #link: Link;
  readonly #control: LlamaControl;

  constructor(link: Link) {
    this.#link = link;
    this.#control = new LlamaControl(link);
    this.adapters = new LlamaAdapters(this.#control);
    this.parameters = parametersOf(this.kind, link.config);
  }

  refuse(request: TextRequest): readonly Refused[] {
    return refusedValues(this.kind, request);
  }

  async connect(signal: AbortSignal): Promise<ServerFacts> {
    const props = await this.#control.props(signal);
    await this.adapters.list(signal);
    return {
      version: props.build_info,
      model: props.model_alias ?? props.model_path,
      contextLength: props.default_generation_settings.n_ctx,
      slots: props.total_slots,
    };
  }

  async *generate(
    request: TextRequest,
    facts: ServerFacts,
    call: EngineCall,
  ): AsyncGenerator<Piece, Outcome, void> {
    const context = facts.contextLength ?? 0;
    // The list at each call: a server that was started again may have other adapters, all applied.
    const [tokens] = await Promise.all([
      this.#control.tokenize(request.input, call.signal),
      this.adapters.list(call.signal),
    ]);
    const { maxTokens } = samplingOf(request.parameters);
    const limits = { context, maxTokens, overflow: request.overflow };
    const prompt = fitPrompt(tokens, await this.#control.beginning(call.signal), limits);
    const seed = seedOf(request.parameters);
    const lora = this.adapters.scales(request.adapters);
    const body = { ...this.#body(request, { seed, context, lora }), prompt };
    const top = request.parameters.logprobs;
    const last = yield* this.#stream(body, top, call);
    checkSettings(last.generation_settings, body, lora);
    return {
      ...finishOf(last),
      usage: usageOf(last),
      model: facts.model,
      modelSha256: null,
      seed,
      truncatedTokens: tokens.length - prompt.length,
    };
  }

  #body(
    { parameters, stop }: TextRequest,
    given: { seed: number | null; context: number; lora: readonly LoraScale[] },
  ): Record<string, unknown> {
    const sampling = samplingOf(parameters);
    return present({
      stream: true,
      // A prompt from the cache gives other last digits, and with them another text for a seed.
      cache_prompt: parameters.seed === undefined,
      temperature: sampling.temperature,
      top_p: sampling.topP,
      top_k: sampling.topK,
      min_p: sampling.minP,
      repeat_penalty: sampling.repetition,
      // The whole text, as the task has it; 64 is the server's default.
      repeat_last_n: given.context,
      presence_penalty: sampling.presence,
      frequency_penalty: sampling.frequency,
      samplers: SAMPLERS,
      n_predict: sampling.maxTokens,
      seed: given.seed ?? 0,
      stop,
      grammar: parameters.grammar,
      json_schema: parameters.json_schema,
      n_probs: parameters.logprobs === undefined ? 0 : Math.max(1, parameters.logprobs),
      // Every adapter by name: an empty list means the scales the server was started with.
      lora: given.lora,
    });
  }

  async *#stream(
    body: Readonly<Record<string, unknown>>,
    top: number | undefined,
    call: EngineCall,
  ): AsyncGenerator<Piece, LlamaLast, void> {
    const spec = {
      method: "POST",
      url: `${this.#link.address.root}/completion`,
      body,
      signal: call.signal,
      what: "/completion",
    } as const;
    // The end-of-text token has an entry of its own, which is known as such only afterwards.
    let held: LlamaChunk | undefined;
    for await (const chunk of this.#link.http.lines(spec, readChunks)) {
      const isEnd = "stop_type" in chunk;
      const isEndToken = isEnd && chunk.stop_type === "eos";
      if (held !== undefined && !isEndToken) yield pieceOf(held, top);
      if (isEnd) return chunk;
      held = undefined;
      if (chunk.content !== "") yield pieceOf(chunk, top);
      else held = chunk;
    }
    throw failure("engine_crashed", "The server's stream ended before its answer did");
  }

  async prefetch(_facts: ServerFacts, { progress }: LoadCall): Promise<void> {
    progress(1, "the server has its model loaded");
  }

  async card(facts: ServerFacts, signal: AbortSignal): Promise<Partial<ModelCard>> {
    return this.#control.card(facts, signal);
  }

  release(level: string): Promise<ReleaseEvidence> {
    throw notOffered(`release "${level}"`, "llama-server");
  }

  async wake(): Promise<void> {}

  isAsleep(): boolean {
    return false;
  }

  async countTokens(input: TextInput, _facts: ServerFacts, signal: AbortSignal): Promise<number> {
    return (await this.#control.tokenize(input, signal)).length;
  }

  async embed(
    input: readonly string[],
    options: { readonly normalize: boolean },
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Embeddings> {
    return embedByOpenAi(this.#link, { input, ...options, model: facts.model }, signal);
  }
}

async function* readChunks({
  lines,
  alive,
}: LineStream): AsyncGenerator<LlamaChunk | LlamaLast, void, void> {
  for await (const { type, data } of readServerEvents(lines)) {
    alive();
    const value = parseJson(data);
    const chunk = chunkSchema.safeParse(value);
    if (chunk.success && !chunk.data.stop) {
      yield chunk.data;
      continue;
    }
    const last = lastChunkSchema.safeParse(value);
    if (last.success) yield last.data;
    else if (chunk.success) throw malformed("/completion", last.error.message);
    else if (type === "error" || data.includes('"error"')) throw streamError(data, "/completion");
    else throw malformed("/completion", quote(data));
  }
}

function pieceOf(chunk: LlamaChunk, top: number | undefined): Piece {
  if (top === undefined) return { text: chunk.content };
  return { text: chunk.content, logprobs: llamaLogprobs(chunk, top) };
}

function finishOf(last: LlamaLast): Pick<Outcome, "finish" | "stopSequence"> {
  const { stop_type: type, stopping_word: word } = last;
  if (type === "none") throw failure("server_aborted", "The server ended the request too early");
  if (type === "word") return { finish: "stop_sequence", stopSequence: word };
  return { finish: type === "eos" ? "stop" : "length", stopSequence: null };
}

function usageOf(last: LlamaLast): Outcome["usage"] {
  const { tokens_evaluated: prompt, tokens_predicted: completion } = last;
  return {
    prompt_tokens: prompt,
    cached_prompt_tokens: Math.min(prompt, last.timings.cache_n),
    completion_tokens: completion,
    total_tokens: prompt + completion,
  };
}
