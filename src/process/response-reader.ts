import { CjmError } from "../errors/index.ts";
import { BodyScanner } from "../protocol/index.ts";

const NEWLINE = 0x0a;
const EMPTY = new Uint8Array();

/** JSON that arrives in pieces, counted as it comes and refused before it is parsed. */
export class PendingJson {
  #scanner = new BodyScanner();
  #parts: Uint8Array[] = [];

  get isEmpty(): boolean {
    return this.#parts.length === 0;
  }

  /** @throws {CjmError} `RESPONSE_TOO_LARGE` as soon as a limit is passed. */
  push(part: Uint8Array): void {
    if (part.length === 0) return;
    const excess = this.#scanner.push(part);
    if (excess !== undefined) {
      throw new CjmError("RESPONSE_TOO_LARGE", `The answer has ${excess}; larger things are files`);
    }
    this.#parts.push(part);
  }

  /** @throws {CjmError} `RESPONSE_INVALID` for what is not JSON. */
  take(): unknown {
    const [first = EMPTY] = this.#parts;
    const bytes = this.#parts.length > 1 ? Buffer.concat(this.#parts) : first;
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
    this.#parts = [];
    this.#scanner = new BodyScanner();
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new CjmError("RESPONSE_INVALID", `The answer is not JSON: ${text.slice(0, 80)}`, {
        cause: error,
      });
    }
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
    }
    pending.push(part.subarray(start));
  }
  if (!pending.isEmpty) yield pending.take();
}
