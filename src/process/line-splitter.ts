const NEWLINE = 0x0a;

/**
 * Cuts a byte stream into lines, each at most `maxBytes` long.
 *
 * A longer line is delivered once, cut, with `isCut` set; the rest of it is skipped. Memory is
 * bounded by `maxBytes` whatever arrives.
 */
export class LineSplitter {
  readonly #maxBytes: number;
  readonly #onLine: (line: Buffer, isCut: boolean) => void;
  #parts: Buffer[] = [];
  #bytes = 0;
  #isSkipping = false;

  constructor(maxBytes: number, onLine: (line: Buffer, isCut: boolean) => void) {
    this.#maxBytes = maxBytes;
    this.#onLine = onLine;
  }

  push(chunk: Buffer): void {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE, start); end !== -1; end = chunk.indexOf(NEWLINE, start)) {
      this.#add(chunk.subarray(start, end));
      this.#endLine();
      start = end + 1;
    }
    if (start < chunk.length) this.#add(chunk.subarray(start));
  }

  /** Delivers what is left without a newline. */
  end(): void {
    if (this.#bytes > 0) this.#deliver(false);
    this.#reset();
  }

  #add(part: Buffer): void {
    if (this.#isSkipping) return;
    const room = this.#maxBytes - this.#bytes;
    // A copy: the chunk's memory belongs to the stream and may be large.
    this.#parts.push(Buffer.from(part.subarray(0, room)));
    this.#bytes += Math.min(part.length, room);
    if (part.length <= room) return;
    this.#deliver(true);
    this.#isSkipping = true;
  }

  #endLine(): void {
    if (!this.#isSkipping) this.#deliver(false);
    this.#reset();
  }

  #deliver(isCut: boolean): void {
    this.#onLine(this.#parts.length === 1 ? this.#first() : Buffer.concat(this.#parts), isCut);
  }

  #first(): Buffer {
    return this.#parts[0] ?? Buffer.alloc(0);
  }

  #reset(): void {
    this.#parts = [];
    this.#bytes = 0;
    this.#isSkipping = false;
  }
}
