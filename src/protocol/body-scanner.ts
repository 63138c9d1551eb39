import { BODY_LIMITS } from "./limits.ts";

export interface BodyLimits {
  readonly bytes: number;
  readonly depth: number;
  readonly values: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const SPACE = 0x20;
/** What is looked at byte by byte before the rest of a string is searched, which pays for long ones. */
const LOOK_BYTES = 64;

/** Bytes that neither open, close, separate nor quote: inside a number or a word, or between two. */
const IS_PLAIN = Uint8Array.from({ length: 256 }, (_, byte) =>
  ['"', ",", "[", "]", "{", "}"].includes(String.fromCharCode(byte)) ? 0 : 1,
);

function skipPlain(chunk: Uint8Array, from: number): number {
  let index = from;
  while (index < chunk.length && IS_PLAIN[chunk[index] ?? 0] === 1) index += 1;
  return index;
}

/**
 * Counts bytes, nesting and values of a JSON body while it arrives, before anything parses it.
 *
 * It does not validate: what is not JSON passes here and fails in `JSON.parse`. Every JSON value
 * counts, containers included and keys not. One scanner per body.
 */
export class BodyScanner {
  readonly #limits: BodyLimits;
  #bytes = 0;
  #depth = 0;
  #values = 0;
  #inString = false;
  #escaped = false;
  /** The next token, unless it closes, is the first value of the document or of a container. */
  #atStart = true;

  constructor(limits: BodyLimits = BODY_LIMITS) {
    this.#limits = limits;
  }

  /** Takes the next bytes; returns the limit that was passed, in words, or undefined. */
  push(chunk: Uint8Array): string | undefined {
    const { bytes, depth, values } = this.#limits;
    this.#bytes += chunk.length;
    if (this.#bytes > bytes) return `more than ${bytes} bytes`;
    let index = 0;
    while (index < chunk.length) {
      index = this.#inString ? this.#skipString(chunk, index) : this.#token(chunk, index);
      if (this.#depth > depth) return `more than ${depth} levels`;
      if (this.#values > values) return `more than ${values} values`;
    }
    return undefined;
  }

  #skipString(chunk: Uint8Array, from: number): number {
    let index = from;
    while (index < chunk.length) {
      const looked = Math.min(chunk.length, index + LOOK_BYTES);
      for (; index < looked; index += 1) {
        const byte = chunk[index];
        if (this.#escaped) this.#escaped = false;
        else if (byte === BACKSLASH) this.#escaped = true;
        else if (byte === QUOTE) {
          this.#inString = false;
          return index + 1;
        }
      }
      if (!this.#escaped) index = nextMark(chunk, index);
    }
    return chunk.length;
  }

  #token(chunk: Uint8Array, index: number): number {
    const byte = chunk[index] ?? SPACE;
    if (byte <= SPACE) return index + 1;
    const closes = byte === 0x5d || byte === 0x7d;
    if (this.#atStart) {
      if (!closes) this.#values += 1;
      this.#atStart = false;
    }
    if (byte === QUOTE) this.#inString = true;
    else if (byte === COMMA) this.#values += 1;
    else if (closes) this.#depth = Math.max(0, this.#depth - 1);
    else if (byte === 0x5b || byte === 0x7b) {
      this.#depth += 1;
      this.#atStart = true;
      return index + 1;
    }
    return this.#inString ? index + 1 : skipPlain(chunk, index + 1);
  }
}

/** Where the next quote or backslash stands, or the end. */
function nextMark(chunk: Uint8Array, from: number): number {
  const quote = chunk.indexOf(QUOTE, from);
  const end = quote === -1 ? chunk.length : quote;
  // No further than the quote: a backslash beyond it may be megabytes away, string after string.
  const escape = chunk.subarray(from, end).indexOf(BACKSLASH);
  return escape === -1 ? end : from + escape;
}
