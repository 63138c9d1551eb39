import type { LlamaModel, Token } from "node-llama-cpp";

/** Tokens of one character at most: a byte each. */
const HELD_MAX = 8;

/**
 * Turns tokens into text that is final: never half a character, and never the beginning of a stop
 * text that the next token may complete.
 */
export class TextStream {
  stopped: string | undefined;
  text = "";
  readonly #model: LlamaModel;
  readonly #stop: readonly string[];
  readonly #before: Token[];
  #tokens: Token[] = [];
  #held = "";

  /** @param before last tokens of the prompt; some tokenizers need them for the first space */
  constructor(model: LlamaModel, stop: readonly string[], before: readonly Token[]) {
    this.#model = model;
    this.#stop = stop;
    this.#before = before.slice(-HELD_MAX);
  }

  /** What the token makes final; after it `stopped` says whether a stop text has ended the text. */
  push(token: Token): string {
    this.#tokens.push(token);
    const piece = this.#model.detokenize(this.#tokens, false, this.#before);
    if (piece.endsWith("\uFFFD") && this.#tokens.length < HELD_MAX) return "";
    this.#settle();
    return this.#release(this.#held + piece, false);
  }

  /** What was held back and now is final. */
  end(): string {
    if (this.stopped !== undefined) return "";
    const piece =
      this.#tokens.length === 0 ? "" : this.#model.detokenize(this.#tokens, false, this.#before);
    this.#settle();
    return this.#release(this.#held + piece, true);
  }

  #settle(): void {
    this.#before.push(...this.#tokens);
    this.#before.splice(0, Math.max(0, this.#before.length - HELD_MAX));
    this.#tokens = [];
  }

  #release(candidate: string, isLast: boolean): string {
    const found = firstStop(candidate, this.#stop);
    if (found !== undefined) this.stopped = found.stop;
    const end = found?.at ?? (isLast ? candidate.length : finalLength(candidate, this.#stop));
    this.#held = found === undefined ? candidate.slice(end) : "";
    const out = candidate.slice(0, end);
    this.text += out;
    return out;
  }
}

function firstStop(
  text: string,
  stops: readonly string[],
): { readonly at: number; readonly stop: string } | undefined {
  let first: { at: number; stop: string } | undefined;
  for (const stop of stops) {
    const at = text.indexOf(stop);
    if (at !== -1 && (first === undefined || at < first.at)) first = { at, stop };
  }
  return first;
}

/** Length of the text before the longest ending that could become a stop text. */
function finalLength(text: string, stops: readonly string[]): number {
  let held = 0;
  for (const stop of stops) {
    for (let length = Math.min(stop.length - 1, text.length); length > held; length -= 1) {
      if (text.endsWith(stop.slice(0, length))) held = length;
    }
  }
  return text.length - held;
}
