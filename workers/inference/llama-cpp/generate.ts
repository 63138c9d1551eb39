import { randomInt } from "node:crypto";
import type {
  LlamaContextSequence,
  LlamaGrammar,
  SequenceEvaluateOptions,
  Token,
} from "node-llama-cpp";
import { CjmError } from "cjm-substrate/worker";
import type { EngineCall, TextRequest } from "../engine.ts";
import { refuse } from "../fault.ts";
import { NEUTRAL } from "../task/parameters.ts";
import type { Delta, FinishReason, Generation, Logprob } from "../task/schemas.ts";
import { logprobOf, rawProbabilities } from "./logprobs.ts";
import type { LoadedModel, Ready } from "./model.ts";
import { evaluateOptions, samplingOf, type Sampling } from "./sampling.ts";
import { TextStream } from "./text-stream.ts";

/** A prompt is evaluated in parts of about this long, so that an abort need not wait for all of it. */
const PART_MS = 80;
const PART_TOKENS_MIN = 32;
const SEEDS = 2 ** 32;

/** What a generation needs beside its request. */
export interface Site {
  readonly loaded: LoadedModel;
  readonly ready: Ready;
  readonly grammar: LlamaGrammar | undefined;
  readonly tokens: readonly Token[];
  readonly started: number;
  readonly engineVersion: string;
  readonly modelId: string;
}

/** The prompt as it will be evaluated, and how many tokens may follow it. */
export interface Plan {
  readonly tokens: readonly Token[];
  readonly maxTokens: number;
  readonly truncated: number;
}

/**
 * Fits a prompt into a slot.
 *
 * @param room tokens that a slot holds
 * @throws {CjmError} `context_overflow` where it does not fit and must not be cut
 */
export function planOf(tokens: readonly Token[], request: TextRequest, room: number): Plan {
  const asked = request.parameters.max_tokens;
  const wanted = asked ?? 1;
  const most = room - wanted;
  if (tokens.length <= most) {
    const maxTokens = asked ?? Math.min(NEUTRAL.max_tokens, room - tokens.length);
    return { tokens, maxTokens, truncated: 0 };
  }
  if (request.overflow === "refuse" || most < 2) {
    const message = `${tokens.length} tokens of prompt and ${wanted} to generate exceed the context of ${room}`;
    throw refuse("context_overflow", message, {
      details: { prompt_tokens: tokens.length, max_tokens: wanted, context: room },
    });
  }
  const keep =
    asked === undefined ? Math.max(2, room - Math.min(NEUTRAL.max_tokens, room >> 2)) : most;
  const truncated = tokens.length - keep;
  // The first token says where a text begins; models answer badly without it.
  const kept = [...tokens.slice(0, 1), ...tokens.slice(truncated + 1)];
  return { tokens: kept, maxTokens: asked ?? room - keep, truncated };
}

/** Generates in a free slot; the slot is free again when this generator has ended, however it does. */
export async function* generate(
  site: Site,
  request: TextRequest,
  { signal }: EngineCall,
): AsyncGenerator<Delta, Generation, void> {
  const plan = planOf(site.tokens, request, site.ready.context.contextSize - 1);
  const { slots } = site.ready;
  const asked = performance.now();
  const sequence = await slots.acquire(plan.tokens, signal);
  try {
    const run = new Run(site, request, { plan, sequence, queuedMs: performance.now() - asked });
    return yield* run.deltas(signal);
  } catch (error) {
    throw signal.aborted ? signal.reason : fault(error);
  } finally {
    site.ready.lastUsed = performance.now();
    slots.release(sequence);
  }
}

function fault(error: unknown): unknown {
  if (error instanceof CjmError) return error;
  const why = error instanceof Error ? error.message : String(error);
  return new CjmError("CAPABILITY_TRANSIENT", `llama.cpp failed: ${why}`, {
    cause: error,
    details: { reason: "engine_crashed" },
  });
}

class Run {
  readonly #site: Site;
  readonly #request: TextRequest;
  readonly #plan: Plan;
  readonly #sequence: LlamaContextSequence;
  readonly #queuedMs: number;
  readonly #sampling: Sampling;
  readonly #out: TextStream;
  readonly #counts = new Map<Token, number>();
  readonly #logprobs: Logprob[] | undefined;
  #finish: FinishReason = "length";
  #generated = 0;
  #reused = 0;
  #firstAt = 0;

  constructor(
    site: Site,
    request: TextRequest,
    parts: {
      readonly plan: Plan;
      readonly sequence: LlamaContextSequence;
      readonly queuedMs: number;
    },
  ) {
    this.#site = site;
    this.#request = request;
    this.#plan = parts.plan;
    this.#sequence = parts.sequence;
    this.#queuedMs = parts.queuedMs;
    this.#sampling = samplingOf(request, () => randomInt(SEEDS));
    this.#out = new TextStream(site.loaded.model, request.stop, parts.plan.tokens);
    this.#logprobs = request.parameters.logprobs === undefined ? undefined : [];
  }

  async *deltas(signal: AbortSignal): AsyncGenerator<Delta, Generation, void> {
    const rest = await this.#prefill(signal);
    const isAskedTwice = this.#logprobs !== undefined && !this.#sampling.isRaw;
    const metadata = { probabilities: this.#logprobs !== undefined && !isAskedTwice };
    const outputs = this.#sequence.evaluateWithMetadata(rest, metadata, this.#options());
    for await (const output of outputs) {
      const { token } = output;
      signal.throwIfAborted();
      this.#count(token);
      if (this.#site.loaded.model.isEogToken(token)) {
        this.#finish = "stop";
        break;
      }
      const raw = isAskedTwice ? await rawProbabilities(this.#sequence) : probabilitiesOf(output);
      const logprob = this.#logprob(token, raw);
      const text = this.#out.push(token);
      if (text !== "" || logprob !== undefined) yield delta(text, logprob);
      if (this.#isOver()) break;
    }
    const last = this.#out.end();
    if (last !== "") yield delta(last, undefined);
    return this.#result();
  }

  /** Evaluates all of the prompt but its last part, from where the slot's own past differs. */
  async #prefill(signal: AbortSignal): Promise<Token[]> {
    const { tokens } = this.#plan;
    const { ready } = this.#site;
    await this.#sequence.adaptStateToTokens(tokens.slice(0, -1), false);
    this.#reused = this.#sequence.nextTokenIndex;
    let rest = tokens.slice(this.#reused);
    for (;;) {
      signal.throwIfAborted();
      const size = Math.max(PART_TOKENS_MIN, Math.floor(PART_MS / ready.prefillPace));
      if (rest.length <= size) return rest;
      const from = performance.now();
      await this.#sequence.evaluateWithoutGeneratingNewTokens(rest.slice(0, size));
      ready.prefillPace = Math.max(1e-3, (performance.now() - from) / size);
      rest = rest.slice(size);
    }
  }

  #options(): SequenceEvaluateOptions {
    const { loaded, grammar } = this.#site;
    const { library } = loaded.native;
    const seen = { prompt: this.#plan.tokens, counts: this.#counts };
    const options = evaluateOptions(library, loaded.model, this.#sampling, seen);
    // The end of the text counts as a token, so it must be seen.
    options.yieldEogToken = true;
    if (grammar !== undefined) {
      const { model } = loaded;
      options.grammarEvaluationState = new library.LlamaGrammarEvaluationState({ model, grammar });
    }
    return options;
  }

  #count(token: Token): void {
    if (this.#generated === 0) this.#firstAt = performance.now();
    this.#generated += 1;
    this.#counts.set(token, (this.#counts.get(token) ?? 0) + 1);
  }

  #logprob(token: Token, raw: ReadonlyMap<Token, number> | undefined): Logprob | undefined {
    if (this.#logprobs === undefined || raw === undefined) return undefined;
    const top = this.#request.parameters.logprobs ?? 0;
    const logprob = logprobOf(this.#site.loaded.model, token, raw, top);
    this.#logprobs.push(logprob);
    return logprob;
  }

  #isOver(): boolean {
    if (this.#out.stopped !== undefined) {
      this.#finish = "stop_sequence";
      return true;
    }
    // At the end of the context the library would drop the oldest tokens by itself.
    const isFull = this.#sequence.nextTokenIndex >= this.#site.ready.context.contextSize - 1;
    return this.#generated >= this.#plan.maxTokens || isFull;
  }

  #result(): Generation {
    const now = performance.now();
    const { started, loaded, ready, engineVersion, modelId } = this.#site;
    const { parameters, adapters } = this.#request;
    const seconds = (now - this.#firstAt) / 1000;
    const promptTokens = this.#plan.tokens.length;
    return {
      text: this.#out.text,
      finish_reason: this.#finish,
      stop_sequence: this.#out.stopped ?? null,
      seed:
        this.#sampling.temperature === 0 && parameters.seed === undefined
          ? null
          : this.#sampling.seed,
      usage: {
        prompt_tokens: promptTokens,
        cached_prompt_tokens: this.#reused,
        completion_tokens: this.#generated,
        total_tokens: promptTokens + this.#generated,
      },
      timings: {
        queued_ms: this.#queuedMs,
        first_token_ms: this.#firstAt - started,
        total_ms: now - started,
        tokens_per_second: this.#generated < 2 ? null : (this.#generated - 1) / seconds,
      },
      adapters: adapters.map(({ id, sha256, scale }) => ({ id, sha256, scale })),
      logprobs: this.#logprobs ?? null,
      evidence: {
        engine: "llama-cpp",
        engine_version: engineVersion,
        model: modelId,
        model_sha256: loaded.sha256,
        adapter_effect: ready.effect,
        prompt_truncated_tokens: this.#plan.truncated,
      },
    };
  }
}

/** The library's type of an output does not follow from options that are not literals. */
function probabilitiesOf(output: object): ReadonlyMap<Token, number> | undefined {
  return "probabilities" in output && output.probabilities instanceof Map
    ? output.probabilities
    : undefined;
}

function delta(text: string, logprob: Logprob | undefined): Delta {
  return { type: "delta", text, ...(logprob === undefined ? {} : { logprobs: [logprob] }) };
}
