import type { TextRequest } from "../engine.ts";
import type { Generation, Timings } from "../task/schemas.ts";
import type { Outcome } from "./dialects/dialect.ts";
import type { Pieces } from "./pieces.ts";

/** The times of one call. */
export class Stopwatch {
  readonly #start = performance.now();
  #admitted: number | undefined;
  #first: number | undefined;

  get hasText(): boolean {
    return this.#first !== undefined;
  }

  admitted(): void {
    this.#admitted = performance.now();
  }

  text(): void {
    this.#first ??= performance.now();
  }

  timings(tokens: number): Timings {
    const end = performance.now();
    const first = this.#first ?? end;
    const seconds = (end - first) / 1000;
    return {
      queued_ms: (this.#admitted ?? end) - this.#start,
      first_token_ms: first - this.#start,
      total_ms: end - this.#start,
      tokens_per_second: tokens < 2 || seconds <= 0 ? null : (tokens - 1) / seconds,
    };
  }
}

/** The result of a call, of its parts. */
export function assemble(parts: {
  readonly request: TextRequest;
  readonly pieces: Pieces;
  readonly outcome: Outcome;
  readonly watch: Stopwatch;
  readonly effect: number | null;
  readonly engine: { readonly name: string; readonly version: string };
}): Generation {
  const { request, pieces, outcome, watch, effect, engine } = parts;
  const isAsked = request.parameters.logprobs !== undefined;
  return {
    text: pieces.text,
    finish_reason: outcome.finish,
    stop_sequence: outcome.stopSequence,
    seed: outcome.seed,
    usage: outcome.usage,
    timings: watch.timings(outcome.usage.completion_tokens),
    adapters: request.adapters.map(({ id, sha256, scale }) => ({ id, sha256, scale })),
    logprobs: isAsked ? [...(pieces.logprobs ?? [])] : null,
    evidence: {
      engine: engine.name,
      engine_version: engine.version,
      model: outcome.model,
      model_sha256: outcome.modelSha256,
      adapter_effect: effect,
      prompt_truncated_tokens: outcome.truncatedTokens,
    },
  };
}
