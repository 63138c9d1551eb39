import type { Delta, Logprob } from "../task/schemas.ts";
import type { Piece } from "./dialects/dialect.ts";

/** The text and the log-probabilities of one answer, and the deltas made of its pieces. */
export class Pieces {
  readonly #parts: string[] = [];
  readonly #logprobs: Logprob[] = [];
  #hasLogprobs = false;
  #half = "";

  get text(): string {
    return this.#parts.join("");
  }

  /** Undefined where no piece had any. */
  get logprobs(): readonly Logprob[] | undefined {
    return this.#hasLogprobs ? this.#logprobs : undefined;
  }

  /** A delta never ends in half a character: its first half waits for the other one. */
  take({ text, logprobs }: Piece): Delta | undefined {
    if (logprobs !== undefined) {
      this.#hasLogprobs = true;
      this.#logprobs.push(...logprobs);
    }
    const whole = this.#half + text;
    const isHalf = /[\uD800-\uDBFF]$/u.test(whole);
    this.#half = isHalf ? whole.slice(-1) : "";
    return this.#delta(isHalf ? whole.slice(0, -1) : whole, logprobs);
  }

  /** What is left when the answer is over. */
  end(): Delta | undefined {
    const rest = this.#half === "" ? "" : "\uFFFD";
    this.#half = "";
    return this.#delta(rest, undefined);
  }

  #delta(text: string, logprobs: readonly Logprob[] | undefined): Delta | undefined {
    const has = logprobs !== undefined && logprobs.length > 0;
    if (text === "" && !has) return undefined;
    this.#parts.push(text);
    return { type: "delta", text, ...(has ? { logprobs: [...logprobs] } : {}) };
  }
}
