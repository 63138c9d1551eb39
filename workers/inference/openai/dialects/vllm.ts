import type {
  EngineCall,
  LoadCall,
  ReleaseEvidence,
  ResolvedAdapter,
  TextInput,
  TextRequest,
} from "../../engine.ts";
import type { ParameterName } from "../../task/parameters.ts";
import type { Embeddings, ModelCard, Score } from "../../task/schemas.ts";
import { failure } from "../failure.ts";
import { Watchdog } from "../http/watchdog.ts";
import type { Dialect, Link, Outcome, Piece, Refused, ServerFacts } from "./dialect.ts";
import { chooseModel, completionOf, embedByOpenAi, listModels } from "./generic.ts";
import { fitPrompt } from "./llama-control.ts";
import { complete, type CompletionRequest } from "./openai-stream.ts";
import { KINDS, parametersOf, refusedValues } from "./kinds.ts";
import { present, samplingOf, seedOf } from "./sampling.ts";
import { serverName, VllmAdapters } from "./vllm-adapters.ts";
import { VllmControl } from "./vllm-control.ts";
import { scoreOf, scoredSchema } from "./vllm-score.ts";
import { VllmSleep } from "./vllm-sleep.ts";

/** A vLLM server: the OpenAI API with its extensions, LoRA adapters at run time, sleep. */
export class VllmDialect implements Dialect {
  readonly kind = "vllm";
  readonly releaseLevels = ["sleep"] as const;
  readonly parameters: ReadonlySet<ParameterName>;
  readonly adapters: VllmAdapters;
  readonly #link: Link;
  readonly #control: VllmControl;
  readonly #sleep: VllmSleep;

  constructor(link: Link) {
    this.#link = link;
    this.#control = new VllmControl(link);
    this.#sleep = new VllmSleep(this.#control);
    this.adapters = new VllmAdapters(this.#control);
    this.parameters = parametersOf(this.kind, link.config);
  }

  refuse(request: TextRequest): readonly Refused[] {
    return refusedValues(this.kind, request);
  }

  async connect(signal: AbortSignal): Promise<ServerFacts> {
    const version = await this.#control.version(signal);
    const { id, max_model_len: length } = chooseModel(
      await listModels(this.#link, signal),
      this.#link,
    );
    this.#sleep.forget();
    const contextLength = length ?? this.#link.config.context_length ?? undefined;
    return { version, model: id, contextLength, slots: undefined };
  }

  async *generate(
    request: TextRequest,
    facts: ServerFacts,
    call: EngineCall,
  ): AsyncGenerator<Piece, Outcome, void> {
    const [adapter] = request.adapters;
    const model = adapter === undefined ? facts.model : serverName(adapter.sha256);
    const seed = seedOf(request.parameters);
    const body = {
      ...bodyOf(request, seed),
      ...constraint(request.parameters, facts.version),
      model,
    };
    const { completion, truncated } = await this.#fit(request, body, facts, call);
    const ending = yield* complete(this.#link, completion, call);
    if (ending.model !== model) {
      const message = `vLLM was asked for ${model} and answered with ${ending.model}`;
      throw failure("server_lied", message, { details: { model: ending.model } });
    }
    return {
      ...ending,
      model: facts.model,
      modelSha256: null,
      seed,
      truncatedTokens: truncated,
    };
  }

  /** Refusing is the server's own doing; dropping is done here, where it can be counted. */
  async #fit(
    request: TextRequest,
    body: Readonly<Record<string, unknown>>,
    facts: ServerFacts,
    call: EngineCall,
  ): Promise<{ completion: CompletionRequest; truncated: number }> {
    const completion = completionOf(request, body);
    const context = facts.contextLength;
    if (request.overflow === "refuse" || context === undefined) return { completion, truncated: 0 };
    const { maxTokens } = samplingOf(request.parameters);
    const { signal } = call;
    const tokens = await this.#control.tokenize(request.input, facts.model, signal);
    if (tokens.length + maxTokens <= context) return { completion, truncated: 0 };
    const empty = { kind: "prompt", prompt: "" } as const;
    const beginning = await this.#control.tokenize(empty, facts.model, signal);
    const prompt = fitPrompt(tokens, beginning, { context, maxTokens, overflow: "truncate" });
    const { logprobs: top } = request.parameters;
    const asText = { ...body, prompt, ...(top === undefined ? {} : { logprobs: top }) };
    return {
      completion: { path: "/completions", body: asText, top },
      truncated: tokens.length - prompt.length,
    };
  }

  async prefetch(_facts: ServerFacts, { progress }: LoadCall): Promise<void> {
    progress(1, "the server has its model loaded");
  }

  async card(facts: ServerFacts): Promise<Partial<ModelCard>> {
    return { id: facts.model, context_length: facts.contextLength ?? null };
  }

  async release(_level: string, facts: ServerFacts): Promise<ReleaseEvidence> {
    return await this.#limited("end of its sleep", (signal) => this.#sleep.sleep(facts, signal));
  }

  async wake(facts: ServerFacts): Promise<void> {
    await this.#limited("end of its waking", (signal) => this.#sleep.wake(facts, signal));
  }

  isAsleep(): boolean {
    return this.#sleep.isAsleep;
  }

  async countTokens(input: TextInput, facts: ServerFacts, signal: AbortSignal): Promise<number> {
    return (await this.#control.tokenize(input, facts.model, signal)).length;
  }

  async embed(
    input: readonly string[],
    options: { readonly normalize: boolean },
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Embeddings> {
    return embedByOpenAi(this.#link, { input, ...options, model: facts.model }, signal);
  }

  async score(
    request: { prompt: string; top: number; adapters: readonly ResolvedAdapter[] },
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Score> {
    const { prompt, top, adapters } = request;
    const [adapter] = adapters;
    if (top > KINDS.vllm.maxLogprobs || adapters.length > 1 || (adapter?.scale ?? 1) !== 1) {
      const fields = top > KINDS.vllm.maxLogprobs ? ["top"] : ["adapters"];
      const message = `vllm does not honour this ${fields.join()} in score`;
      throw failure("parameter_unsupported", message, { fields });
    }
    const model = adapter === undefined ? facts.model : serverName(adapter.sha256);
    const url = `${this.#link.address.api}/completions`;
    const body = {
      model,
      prompt,
      max_tokens: 1,
      temperature: 0,
      prompt_logprobs: top,
      logprobs: top,
      return_token_ids: true,
      return_tokens_as_token_ids: true,
    };
    const what = "/completions";
    const answer = await this.#link.http.json(
      { method: "POST", url, body, signal, what },
      scoredSchema,
    );
    return scoreOf(answer, top, adapters);
  }

  /** Weights move here, so the limit is that of loading, not that of a question. */
  async #limited<T>(what: string, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const { drain_seconds: drain, first_token_seconds: load } = this.#link.config;
    using watchdog = new Watchdog();
    watchdog.expect(what, (drain + 3 * load) * 1000);
    return await run(watchdog.signal);
  }
}

function bodyOf({ parameters, stop }: TextRequest, seed: number | null): Record<string, unknown> {
  const sampling = samplingOf(parameters);
  return present({
    temperature: sampling.temperature,
    top_p: sampling.topP,
    // -1 is "all" in every version; 0 only in newer ones.
    top_k: sampling.topK === 0 ? -1 : sampling.topK,
    min_p: minPOf(sampling),
    repetition_penalty: sampling.repetition,
    presence_penalty: sampling.presence,
    frequency_penalty: sampling.frequency,
    max_tokens: sampling.maxTokens,
    seed: seed ?? undefined,
    stop: stop.length === 0 ? undefined : stop,
    return_token_ids: parameters.logprobs === undefined ? undefined : true,
  });
}

/**
 * vLLM applies `min_p` after the temperature, the task before it. It compares with the likeliest
 * token, so the same tokens remain with min_p^(1/temperature).
 */
function minPOf({ minP, temperature }: { minP: number; temperature: number }): number {
  return temperature === 0 ? minP : minP ** (1 / temperature);
}

/** Versions before 0.11 have other names, and skip in silence a field that they do not know. */
const OLD_VERSION = /^0\.(?:[2-9]|10)\.\d/u;

function constraint(
  { json_schema: json, grammar }: TextRequest["parameters"],
  version = "",
): Record<string, unknown> {
  if (json === undefined && grammar === undefined) return {};
  if (OLD_VERSION.test(version)) return present({ guided_json: json, guided_grammar: grammar });
  return { structured_outputs: present({ json, grammar }) };
}
