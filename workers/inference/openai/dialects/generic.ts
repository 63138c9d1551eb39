import type { EngineCall, LoadCall, ReleaseEvidence, TextRequest } from "../../engine.ts";
import type { ParameterName } from "../../task/parameters.ts";
import type { Embeddings, ModelCard } from "../../task/schemas.ts";
import { CjmError } from "cjm-substrate/worker";
import { failure } from "../failure.ts";
import type { Dialect, Link, Outcome, Piece, Refused, ServerFacts } from "./dialect.ts";
import { complete, type CompletionRequest } from "./openai-stream.ts";
import { embeddingsSchema, modelListSchema } from "./openai-wire.ts";
import { parametersOf, refusedValues } from "./kinds.ts";
import { present, samplingOf } from "./sampling.ts";

/** Any server with the OpenAI API: nothing beyond it is asked for, nothing is assumed. */
export class GenericDialect implements Dialect {
  readonly kind = "generic";
  readonly releaseLevels: readonly string[] = [];
  readonly parameters: ReadonlySet<ParameterName>;
  readonly #link: Link;

  constructor(link: Link) {
    this.#link = link;
    this.parameters = parametersOf(this.kind, link.config);
  }

  refuse(request: TextRequest): readonly Refused[] {
    const refused = refusedValues(this.kind, request);
    const isPrompt = request.input.kind === "prompt";
    if (!isPrompt || request.parameters.json_schema === undefined) return refused;
    return [...refused, { field: "json_schema", why: "OpenAI has it for conversations only" }];
  }

  async connect(signal: AbortSignal): Promise<ServerFacts> {
    const { id } = await this.#model(signal);
    const contextLength = this.#link.config.context_length ?? undefined;
    return { version: undefined, model: id, contextLength, slots: undefined };
  }

  /** A server without `/models` has the model that the operator names. */
  async #model(signal: AbortSignal): Promise<{ readonly id: string }> {
    try {
      return chooseModel(await listModels(this.#link, signal), this.#link);
    } catch (error) {
      const { model } = this.#link.config;
      const status = error instanceof CjmError ? error.details["status"] : undefined;
      if (model === null || (status !== 404 && status !== 405)) throw error;
      return { id: model };
    }
  }

  async *generate(
    request: TextRequest,
    facts: ServerFacts,
    call: EngineCall,
  ): AsyncGenerator<Piece, Outcome, void> {
    const body = { ...this.#body(request), model: facts.model };
    const ending = yield* complete(this.#link, completionOf(request, body), call);
    // OpenAI calls its seed a best effort, so one that nobody asked for is not made up here.
    return {
      ...ending,
      modelSha256: null,
      seed: request.parameters.seed ?? null,
      truncatedTokens: 0,
    };
  }

  /** Non-standard fields go out only if the server is said to honour them, then always. */
  #body({ parameters, stop }: TextRequest): Record<string, unknown> {
    const sampling = samplingOf(parameters);
    const has = (name: ParameterName): boolean => this.parameters.has(name);
    return present({
      temperature: has("temperature") ? sampling.temperature : undefined,
      top_p: has("top_p") ? sampling.topP : undefined,
      presence_penalty: has("presence_penalty") ? sampling.presence : undefined,
      frequency_penalty: has("frequency_penalty") ? sampling.frequency : undefined,
      max_tokens: sampling.maxTokens,
      seed: parameters.seed,
      stop: stop.length === 0 ? undefined : stop,
      top_k: has("top_k") ? sampling.topK : undefined,
      min_p: has("min_p") ? sampling.minP : undefined,
      repetition_penalty: has("repetition_penalty") ? sampling.repetition : undefined,
      grammar: parameters.grammar,
      response_format: responseFormat(parameters.json_schema),
    });
  }

  async prefetch(_facts: ServerFacts, { progress }: LoadCall): Promise<void> {
    progress(1, "the server answers");
  }

  async card(facts: ServerFacts): Promise<Partial<ModelCard>> {
    return { id: facts.model, context_length: facts.contextLength ?? null };
  }

  release(level: string): Promise<ReleaseEvidence> {
    throw notOffered(`release "${level}"`, "a generic server");
  }

  async wake(): Promise<void> {}

  isAsleep(): boolean {
    return false;
  }

  countTokens(): Promise<number> {
    throw notOffered("count_tokens", "a generic server");
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

/** The request of the OpenAI API for a prompt or a conversation, with `logprobs` in its own form. */
export function completionOf(
  { input, parameters }: TextRequest,
  body: Readonly<Record<string, unknown>>,
): CompletionRequest {
  const top = parameters.logprobs;
  if (input.kind === "prompt") {
    const logprobs = top === undefined ? {} : { logprobs: top };
    return { path: "/completions", body: { ...body, prompt: input.prompt, ...logprobs }, top };
  }
  const logprobs = top === undefined ? {} : { logprobs: true, top_logprobs: top };
  return {
    path: "/chat/completions",
    body: { ...body, messages: input.messages, ...logprobs },
    top,
  };
}

export function responseFormat(schema: Readonly<Record<string, unknown>> | undefined): unknown {
  if (schema === undefined) return undefined;
  return { type: "json_schema", json_schema: { name: "result", schema, strict: true } };
}

type ListedModel = ReturnType<typeof modelListSchema.parse>["data"][number];

export async function listModels(link: Link, signal: AbortSignal): Promise<readonly ListedModel[]> {
  const timeoutMs = link.config.control_seconds * 1000;
  const url = `${link.address.api}/models`;
  const spec = { method: "GET", url, signal, timeoutMs, what: "/models" } as const;
  return (await link.http.json(spec, modelListSchema)).data;
}

/** The configured model, or the only one that is no adapter. @throws `model_missing` */
export function chooseModel(listed: readonly ListedModel[], link: Link): ListedModel {
  const wanted = link.config.model;
  const bases = listed.filter(({ parent }) => typeof parent !== "string");
  const chosen = wanted === null ? onlyOne(bases) : listed.find(({ id }) => id === wanted);
  if (chosen !== undefined) return chosen;
  const names = bases.slice(0, 10).map(({ id }) => id);
  const problem = wanted === null ? "name the model to use" : `has no model "${wanted}"`;
  throw failure("model_missing", `The server ${problem}; it lists: ${names.join(", ") || "none"}`, {
    fields: ["model"],
  });
}

function onlyOne<T>(list: readonly T[]): T | undefined {
  return list.length === 1 ? list[0] : undefined;
}

export function notOffered(what: string, who: string): Error {
  return failure("method_unsupported", `${who} has no ${what}`);
}

/** `/embeddings`; vectors are normalized here, because no server says whether it does. */
export async function embedByOpenAi(
  link: Link,
  { input, normalize, model }: { input: readonly string[]; normalize: boolean; model: string },
  signal: AbortSignal,
): Promise<Embeddings> {
  if (!normalize) {
    const why = "the server does not say whether it normalizes";
    throw failure("parameter_unsupported", `normalize: false is refused: ${why}`, {
      fields: ["normalize"],
    });
  }
  const url = `${link.address.api}/embeddings`;
  const body = { model, input, encoding_format: "float" };
  const spec = { method: "POST", url, body, signal, what: "/embeddings" } as const;
  const answer = await link.http.json(spec, embeddingsSchema);
  const vectors = answer.data
    .toSorted((a, b) => a.index - b.index)
    .map(({ embedding }) => embedding);
  return embeddingsOf(vectors, input.length, answer.usage?.prompt_tokens ?? 0);
}

export function embeddingsOf(
  vectors: readonly (readonly number[])[],
  wanted: number,
  promptTokens: number,
): Embeddings {
  const dimensions = vectors[0]?.length ?? 0;
  if (vectors.length !== wanted || vectors.some(({ length }) => length !== dimensions)) {
    throw failure(
      "server_error",
      `The server returned ${vectors.length} vectors for ${wanted} texts`,
    );
  }
  return {
    embeddings: vectors.map(unit),
    dimensions,
    usage: { prompt_tokens: promptTokens },
    model_sha256: null,
  };
}

function unit(vector: readonly number[]): number[] {
  const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
  return vector.map((value) => (length === 0 ? 0 : value / length));
}
