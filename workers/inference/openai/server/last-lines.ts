import type { Readable } from "node:stream";

/** Longest line that is passed on; the rest of it is dropped. */
const MAX_LINE = 8192;

/** Passes a program's output on line by line, and keeps the last lines for an error message. */
export class LastLines {
  readonly #keep: number;
  readonly #lines: string[] = [];

  constructor(keep: number) {
    this.#keep = keep;
  }

  get text(): string {
    return this.#lines.join("\n");
  }

  /** Reads until the stream ends; never rejects. */
  async read(stream: Readable, onLine: (line: string) => void): Promise<void> {
    let rest = "";
    stream.setEncoding("utf8");
    const take = (line: string): void => {
      if (line.trim() === "") return;
      this.#lines.push(line);
      if (this.#lines.length > this.#keep) this.#lines.shift();
      onLine(line);
    };
    try {
      for await (const chunk of stream as AsyncIterable<string>) {
        const lines = (rest + chunk).split(/\r\n|\r|\n/u);
        rest = (lines.pop() ?? "").slice(0, MAX_LINE);
        for (const line of lines) take(line.slice(0, MAX_LINE));
      }
    } catch {
      // The pipe broke: the program's end says more.
    }
    take(rest);
  }
}
