import type { EngineCall, LoadCall, ReleaseEvidence, TextRequest } from "../../engine.ts";
import type { ParameterName } from "../../task/parameters.ts";
import type { Embeddings, ModelCard } from "../../task/schemas.ts";
import { failure, quote } from "../failure.ts";
import { malformed, type LineStream } from "../http/client.ts";
import { parseJson, readRefusal, refusalError } from "../http/refusal.ts";
import { Watchdog } from "../http/watchdog.ts";
import type { Dialect, Link, Outcome, Piece, Refused, ServerFacts } from "./dialect.ts";
import { embeddingsOf, notOffered } from "./generic.ts";
import { OllamaModels } from "./ollama-models.ts";
import {
  chunkSchema,
  embedSchema,
  errorSchema,
  ollamaLogprobs,
  type OllamaChunk,
} from "./ollama-wire.ts";
import { parametersOf, refusedValues } from "./kinds.ts";
import { present, samplingOf, seedOf } from "./sampling.ts";

/** Ollama by its own API: the OpenAI one has no keep-alive, no top_k and no context length. */
export class OllamaDialect implements Dialect {
  readonly kind = "ollama";
  readonly releaseLevels = ["unload"] as const;
  readonly parameters: ReadonlySet<ParameterName>;
  readonly #link: Link;
  readonly #models: OllamaModels;

  constructor(link: Link) {
    this.#link = link;
    this.#models = new OllamaModels(link);
    this.parameters = parametersOf(this.kind, link.config);
  }

  refuse(request: TextRequest): readonly Refused[] {
    return refusedValues(this.kind, request);
  }

  async connect(signal: AbortSignal): Promise<ServerFacts> {
    const version = await this.#models.version(signal);
    const { config } = this.#link;
    // A model that is not there yet may be pulled by prefetch, so its absence is no error here.
    const contextLength = config.context_length ?? undefined;
    return { version, model: config.model ?? "", contextLength, slots: undefined };
  }

  async *generate(
    request: TextRequest,
    facts: ServerFacts,
    call: EngineCall,
  ): AsyncGenerator<Piece, Outcome, void> {
    const modelSha256 = await this.#models.sha256(facts.model, call.signal);
    const top = request.parameters.logprobs;
    const seed = seedOf(request.parameters);
    const { path, body } = this.#request(request, seed, facts);
    const url = `${this.#link.address.root}${path}`;
    const spec = { method: "POST", url, body, signal: call.signal, what: path } as const;
    let last: OllamaChunk | undefined;
    for await (const chunk of this.#link.http.lines(spec, (stream) => readChunks(stream, path))) {
      const piece = pieceOf(chunk, top);
      if (piece.text !== "" || (piece.logprobs?.length ?? 0) > 0) yield piece;
      if (chunk.done) last = chunk;
    }
    if (last === undefined) {
      throw failure("engine_crashed", "The server's stream ended before its answer did");
    }
    const { usage, finish } = endOf(last);
    return {
      finish,
      // Ollama says `stop` for both, and cuts the stop text off.
      stopSequence: null,
      usage,
      model: last.model,
      modelSha256,
      seed,
      truncatedTokens: 0,
    };
  }

  #request(
    { input, parameters, stop }: TextRequest,
    seed: number | null,
    facts: ServerFacts,
  ): { path: string; body: Record<string, unknown> } {
    const { logprobs: top } = parameters;
    const common = present({
      model: facts.model,
      stream: true,
      options: this.#options({ parameters, stop }, seed),
      keep_alive: this.#link.config.keep_alive,
      format: parameters.json_schema,
      logprobs: top === undefined ? undefined : true,
      top_logprobs: top,
      // Its defaults drop old messages, and go on when the context is full, both in silence.
      truncate: false,
      shift: false,
    });
    if (input.kind === "chat") {
      return { path: "/api/chat", body: { ...common, messages: input.messages } };
    }
    return { path: "/api/generate", body: { ...common, prompt: input.prompt, raw: true } };
  }

  #options(
    { parameters, stop }: Pick<TextRequest, "parameters" | "stop">,
    seed: number | null,
  ): Record<string, unknown> {
    const sampling = samplingOf(parameters);
    const context = this.#link.config.context_length;
    return present({
      temperature: sampling.temperature,
      top_p: sampling.topP,
      top_k: sampling.topK,
      min_p: sampling.minP,
      typical_p: 1,
      repeat_penalty: sampling.repetition,
      // -1 is the whole context, as the task has it.
      repeat_last_n: sampling.repetition === 1 ? undefined : -1,
      presence_penalty: sampling.presence,
      frequency_penalty: sampling.frequency,
      num_predict: sampling.maxTokens,
      seed: seed ?? 0,
      stop,
      num_ctx: context ?? undefined,
    });
  }

  async prefetch(facts: ServerFacts, call: LoadCall): Promise<void> {
    await this.#models.load(facts.model, call);
  }

  async card(facts: ServerFacts, signal: AbortSignal): Promise<Partial<ModelCard>> {
    return this.#models.card(facts.model, signal);
  }

  async release(_level: string, facts: ServerFacts): Promise<ReleaseEvidence> {
    using watchdog = new Watchdog();
    watchdog.expect("end of its unloading", this.#link.config.control_seconds * 2000);
    return await this.#models.unload(facts.model, watchdog.signal);
  }

  async wake(): Promise<void> {}

  isAsleep(): boolean {
    return false;
  }

  countTokens(): Promise<number> {
    throw notOffered("count_tokens", "Ollama");
  }

  async embed(
    input: readonly string[],
    { normalize }: { readonly normalize: boolean },
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Embeddings> {
    if (!normalize) {
      const message = "normalize: false is refused: Ollama always normalizes";
      throw failure("parameter_unsupported", message, { fields: ["normalize"] });
    }
    const { keep_alive: keepAlive } = this.#link.config;
    const body = { model: facts.model, input, truncate: false, keep_alive: keepAlive };
    const url = `${this.#link.address.root}/api/embed`;
    const spec = { method: "POST", url, body, signal, what: "/api/embed" } as const;
    const { embeddings, prompt_eval_count: count } = await this.#link.http.json(spec, embedSchema);
    return embeddingsOf(embeddings, input.length, count ?? 0);
  }
}

async function* readChunks(
  { lines, alive }: LineStream,
  what: string,
): AsyncGenerator<OllamaChunk, void, void> {
  for await (const line of lines) {
    if (line.trim() === "") continue;
    alive();
    const value = parseJson(line);
    const chunk = chunkSchema.safeParse(value);
    if (chunk.success) {
      yield chunk.data;
      if (chunk.data.done) return;
      continue;
    }
    // The status line had already said 200.
    if (errorSchema.safeParse(value).success) throw refusalError(readRefusal(500, line), what);
    throw malformed(what, quote(line));
  }
}

function pieceOf(chunk: OllamaChunk, top: number | undefined): Piece {
  const text = chunk.message?.content ?? chunk.response ?? "";
  const logprobs = top === undefined ? undefined : ollamaLogprobs(chunk, top);
  return logprobs === undefined ? { text } : { text, logprobs };
}

function endOf(last: OllamaChunk): Pick<Outcome, "finish" | "usage"> {
  const { done_reason: reason, prompt_eval_count: prompt, eval_count: completion } = last;
  if (reason !== "stop" && reason !== "length") {
    const message = `Ollama ended its text for an unknown reason: ${reason ?? "none"}`;
    throw failure(
      reason === "load" || reason === "unload" ? "server_aborted" : "server_error",
      message,
    );
  }
  if (typeof completion !== "number") {
    throw failure("server_error", "Ollama's last line has no eval_count");
  }
  // Older versions leave a prompt that was cached whole out of the count.
  const prompted = prompt ?? 0;
  return {
    finish: reason,
    usage: {
      prompt_tokens: prompted,
      cached_prompt_tokens: 0,
      completion_tokens: completion,
      total_tokens: prompted + completion,
    },
  };
}
