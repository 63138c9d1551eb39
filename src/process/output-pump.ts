import type { Readable } from "node:stream";
import { LineSplitter } from "./line-splitter.ts";
import { RateLimit } from "./rate-limit.ts";

const LINE_MAX_BYTES = 64 * 1024;
const LINES_PER_SECOND = 20_000;
const DRAIN_AFTER_EXIT_MS = 250;

export type OutputStream = "stdout" | "stderr";

const strict = new TextDecoder("utf-8", { fatal: true });

/**
 * Reads one output stream of a worker to its end, so that a worker that prints never blocks.
 *
 * Lines go to `onLine`; of a line with carriage returns only the last frame is kept, bytes that
 * are not UTF-8 are written as `\xNN`. Beyond 20,000 lines a second lines are dropped and counted.
 */
export class OutputPump {
  readonly #stream: Readable;
  readonly #ended: Promise<void>;

  constructor(stream: Readable, onLine: (line: string) => void) {
    this.#stream = stream;
    const limit = new RateLimit(LINES_PER_SECOND);
    const splitter = new LineSplitter(LINE_MAX_BYTES, (bytes, isCut) => {
      const text = lastFrame(decodeLossless(bytes));
      if (text === "" || !limit.take()) return;
      const dropped = limit.drainRefused();
      if (dropped > 0) onLine(`[${dropped} lines dropped: more than ${LINES_PER_SECOND} a second]`);
      onLine(isCut ? `${text} [line cut at ${LINE_MAX_BYTES} bytes]` : text);
    });
    stream.on("data", (chunk: Buffer) => {
      splitter.push(chunk);
    });
    this.#ended = new Promise((resolve) => {
      stream.once("close", () => {
        splitter.end();
        resolve();
      });
      // An error on a pipe of a process that is ending says nothing that its exit does not.
      stream.on("error", () => stream.destroy());
    });
  }

  /** Reads until the pipe is empty or 250 ms have passed; a grandchild may hold it for ever. */
  async drain(): Promise<void> {
    const timer = setTimeout(() => this.#stream.destroy(), DRAIN_AFTER_EXIT_MS);
    await this.#ended;
    clearTimeout(timer);
  }
}

/** Valid UTF-8 as it is; any other byte as `\xNN`, so that nothing is lost. */
export function decodeLossless(bytes: Buffer): string {
  try {
    return strict.decode(bytes);
  } catch {
    return decodePiecewise(bytes);
  }
}

function decodePiecewise(bytes: Buffer): string {
  let text = "";
  for (let at = 0; at < bytes.length;) {
    const length = validSequenceLength(bytes, at);
    if (length === 0) {
      text += `\\x${(bytes[at] ?? 0).toString(16).padStart(2, "0")}`;
      at += 1;
    } else {
      text += bytes.toString("utf8", at, at + length);
      at += length;
    }
  }
  return text;
}

/** Bytes of the UTF-8 sequence that starts at `at`; 0 if none does. */
function validSequenceLength(bytes: Buffer, at: number): number {
  for (let length = 1; length <= 4 && at + length <= bytes.length; length += 1) {
    try {
      strict.decode(bytes.subarray(at, at + length));
      return length;
    } catch {
      // Longer sequences are tried next.
    }
  }
  return 0;
}

/** A progress bar redraws its line with carriage returns; only the last picture is worth keeping. */
function lastFrame(text: string): string {
  const frames = text.split("\r").filter((frame) => frame.trim() !== "");
  return frames.at(-1) ?? "";
}
