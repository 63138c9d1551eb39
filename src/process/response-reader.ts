import { isUtf8 } from "node:buffer";
import { CjmError } from "../errors/index.ts";
import { BodyScanner } from "../protocol/index.ts";
import { loopTurn, nextTurn } from "./loop-turn.ts";

const NEWLINE = 0x0a;

const FIRST_CAPACITY = 16 * 1024;

/**
 * JSON that arrives in pieces, counted as it comes and refused before it is parsed.
 *
 * It is copied into one buffer: a worker that sends it byte by byte would otherwise make the host
 * keep an object, and the memory it is a part of, for each of them.
 */
export class PendingJson {
  #scanner = new BodyScanner();
  #buffer = Buffer.alloc(0);
  #length = 0;

  get isEmpty(): boolean {
    return this.#length === 0;
  }

  /** @throws {CjmError} `RESPONSE_TOO_LARGE` as soon as a limit is passed. */
  push(part: Uint8Array): void {
    if (part.length === 0) return;
    const excess = this.#scanner.push(part);
    if (excess !== undefined) {
      throw new CjmError("RESPONSE_TOO_LARGE", `The answer has ${excess}; larger things are files`);
    }
    this.#reserve(this.#length + part.length);
    this.#buffer.set(part, this.#length);
    this.#length += part.length;
  }

  /** @throws {CjmError} `RESPONSE_INVALID` for what is not JSON. */
  take(): unknown {
    const bytes = this.#buffer.subarray(0, this.#length);
    const text = bytes.toString("utf8");
    this.#length = 0;
    this.#scanner = new BodyScanner();
    // Decoding would put other characters in the place of what is not UTF-8, and nobody would know.
    if (!isUtf8(bytes)) throw new CjmError("RESPONSE_INVALID", "The answer is not UTF-8");
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new CjmError("RESPONSE_INVALID", `The answer is not JSON: ${text.slice(0, 80)}`, {
        cause: error,
      });
    }
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#buffer.length) return;
    const grown = Buffer.allocUnsafe(Math.max(bytes, FIRST_CAPACITY, this.#buffer.length * 2));
    this.#buffer.copy(grown, 0, 0, this.#length);
    this.#buffer = grown;
  }
}

/** The one JSON value of a body. */
export async function readJson(body: AsyncIterable<Uint8Array>): Promise<unknown> {
  const pending = new PendingJson();
  for await (const part of body) pending.push(part);
  return pending.take();
}

/** One JSON value a line; the limits hold for each line. */
export async function* readJsonLines(body: AsyncIterable<Uint8Array>): AsyncGenerator {
  const pending = new PendingJson();
  for await (const part of body) {
    let start = 0;
    for (let end = part.indexOf(NEWLINE); end !== -1; end = part.indexOf(NEWLINE, start)) {
      pending.push(part.subarray(start, end));
      if (!pending.isEmpty) yield pending.take();
      start = end + 1;
      // A piece of the body may hold thousands of lines, and no wait of their readers is a turn.
      if (!loopTurn.hasTime) await nextTurn();
    }
    pending.push(part.subarray(start));
  }
  if (!pending.isEmpty) yield pending.take();
}
