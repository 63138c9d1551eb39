import type { Socket } from "node:net";

/** Longest line a guest may send; one that is longer ends the conversation. */
const MAX_LINE_BYTES = 1_048_576;

/** Lines to and from a guest. What it sends is only ever data. */
export class LineChannel implements Disposable {
  readonly #socket: Socket;
  readonly #lines: string[] = [];
  #partial = Buffer.alloc(0);
  #isClosed = false;
  #wake = Promise.withResolvers<void>();

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("close", () => this.#close());
    socket.on("end", () => this.#close());
    socket.on("error", () => this.#close());
  }

  send(line: string): void {
    if (!this.#isClosed) this.#socket.write(`${line}\n`);
  }

  /** The next line; undefined at the end. */
  async receive(): Promise<string | undefined> {
    while (this.#lines.length === 0 && !this.#isClosed) {
      this.#wake = Promise.withResolvers<void>();
      await this.#wake.promise;
    }
    return this.#lines.shift();
  }

  /** Half-closes: the guest reads an end, and whoever waits here is let go. */
  [Symbol.dispose](): void {
    this.#socket.end();
    this.#close();
  }

  #take(chunk: Buffer): void {
    this.#partial = Buffer.concat([this.#partial, chunk]);
    let end = this.#partial.indexOf(10);
    while (end !== -1) {
      this.#lines.push(this.#partial.toString("utf8", 0, end));
      this.#partial = this.#partial.subarray(end + 1);
      end = this.#partial.indexOf(10);
    }
    if (this.#partial.length > MAX_LINE_BYTES || this.#lines.length > MAX_WAITING_LINES) {
      this.#socket.destroy();
      this.#close();
    }
    this.#wake.resolve();
  }

  #close(): void {
    this.#isClosed = true;
    this.#wake.resolve();
  }
}

/** A guest that floods the channel is cut off. */
const MAX_WAITING_LINES = 10_000;
