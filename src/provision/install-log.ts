import { createWriteStream, mkdirSync, type WriteStream } from "node:fs";
import { once } from "node:events";
import { dirname } from "node:path";
import { LineSplitter } from "../process/line-splitter.ts";
import { splitLines } from "../util/lines.ts";

const MAX_LOG_BYTES = 16 * 1024 * 1024;
const MAX_LINE_BYTES = 8 * 1024;
const TAIL_LINES = 25;

/**
 * The log file of one environment's installation; made by the first line that is written.
 *
 * Own it with `await using`.
 */
export class InstallLog implements AsyncDisposable {
  readonly path: string;
  readonly #onLine: (line: string) => void;
  readonly #splitter: LineSplitter;
  #tail: string[] = [];
  #file: WriteStream | undefined;
  #bytes = 0;

  constructor(path: string, onLine: (line: string) => void = () => undefined) {
    this.path = path;
    this.#onLine = onLine;
    this.#splitter = new LineSplitter(MAX_LINE_BYTES, (lines) => {
      for (const line of splitLines(lines)) this.line(Buffer.from(line).toString("utf8"));
    });
  }

  /** Output of an installer. */
  push(chunk: Buffer): void {
    this.#splitter.push(chunk);
  }

  /** Ends the output of one installer. */
  endOutput(): void {
    this.#splitter.end();
  }

  line(text: string): void {
    // A progress bar redraws its line; only its last state is worth keeping.
    const line = text.trimEnd().split("\r").at(-1) ?? "";
    this.#write(line);
    if (line.trim() === "") return;
    this.#tail = [...this.#tail, line].slice(-TAIL_LINES);
    this.#onLine(line);
  }

  /** The last lines, for an error's message. */
  tail(): string {
    return this.#tail.join("\n");
  }

  startCommand(command: readonly string[]): void {
    this.#tail = [];
    this.#write(`$ ${command.join(" ")}`);
  }

  #write(line: string): void {
    if (this.#bytes > MAX_LOG_BYTES) return;
    if (this.#file === undefined) {
      mkdirSync(dirname(this.path), { recursive: true });
      this.#file = createWriteStream(this.path, { flags: "w" });
      // A log that cannot be written must not end the installation it tells about.
      this.#file.on("error", () => undefined);
    }
    this.#bytes += Buffer.byteLength(line) + 1;
    const isFull = this.#bytes > MAX_LOG_BYTES;
    this.#file.write(isFull ? `(cut: over ${MAX_LOG_BYTES} bytes)\n` : `${line}\n`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#file === undefined || this.#file.destroyed) return;
    this.#file.end();
    await once(this.#file, "close");
  }
}
