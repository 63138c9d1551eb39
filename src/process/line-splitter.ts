const NEWLINE = 0x0a;

/**
 * Cuts a byte stream into blocks of whole lines, none of them longer than `maxBytes`.
 *
 * A block is what one chunk of the stream completes, and each of its lines ends in a newline. It is
 * mostly a view of that chunk: valid until `onLines` returns. A longer line is delivered once, cut,
 * with a mark that says so; the rest of it is skipped. Memory is bounded by `maxBytes` whatever
 * arrives.
 */
export class LineSplitter {
  readonly #maxBytes: number;
  readonly #onLines: (block: Buffer) => void;
  #held: Buffer[] = [];
  #heldBytes = 0;
  #isSkipping = false;

  constructor(maxBytes: number, onLines: (block: Buffer) => void) {
    this.#maxBytes = maxBytes;
    this.#onLines = onLines;
  }

  push(chunk: Buffer): void {
    // In steps, so that no line inside one of them can be too long.
    for (let at = 0; at < chunk.length; at += this.#maxBytes) {
      this.#step(chunk.subarray(at, at + this.#maxBytes));
    }
  }

  /** Delivers what is left without a newline. */
  end(): void {
    if (this.#heldBytes > 0) this.#endLine();
    this.#isSkipping = false;
  }

  #step(chunk: Buffer): void {
    const first = chunk.indexOf(NEWLINE);
    if (first === -1) {
      this.#hold(chunk);
      return;
    }
    let start = 0;
    if (this.#heldBytes > 0 || this.#isSkipping) {
      this.#hold(chunk.subarray(0, first));
      if (!this.#isSkipping) this.#endLine();
      this.#isSkipping = false;
      start = first + 1;
    }
    const end = chunk.lastIndexOf(NEWLINE) + 1;
    if (end > start) this.#onLines(chunk.subarray(start, end));
    this.#hold(chunk.subarray(end));
  }

  #hold(part: Buffer): void {
    if (this.#isSkipping || part.length === 0) return;
    const room = this.#maxBytes - this.#heldBytes;
    // A copy: the chunk's memory belongs to the stream and may be large.
    this.#held.push(Buffer.from(part.subarray(0, room)));
    this.#heldBytes += Math.min(part.length, room);
    if (part.length <= room) return;
    this.#endLine(` [line cut at ${this.#maxBytes} bytes]`);
    this.#isSkipping = true;
  }

  #endLine(mark = ""): void {
    const line = Buffer.concat([...this.#held, Buffer.from(`${mark}\n`)]);
    this.#held = [];
    this.#heldBytes = 0;
    this.#onLines(line);
  }
}
