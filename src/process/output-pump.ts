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
    const tellDropped = (): void => {
      const dropped = limit.drainRefused();
      if (dropped > 0) onLine(`[${dropped} lines dropped: more than ${LINES_PER_SECOND} a second]`);
    };
    const splitter = new LineSplitter(LINE_MAX_BYTES, (bytes, isCut) => {
      const text = lastFrame(decodeLossless(bytes));
      if (text === "" || !limit.take()) return;
      tellDropped();
      onLine(isCut ? `${text} [line cut at ${LINE_MAX_BYTES} bytes]` : text);
    });
    stream.on("data", (chunk: Buffer) => {
      splitter.push(chunk);
    });
    this.#ended = new Promise((resolve) => {
      stream.once("close", () => {
        splitter.end();
        tellDropped();
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
  const parts: string[] = [];
  let from = 0;
  for (let at = 0; at < bytes.length;) {
    const length = sequenceLength(bytes, at);
    if (length > 0) {
      at += length;
      continue;
    }
    if (from < at) parts.push(bytes.toString("utf8", from, at));
    parts.push(`\\x${(bytes[at] ?? 0).toString(16).padStart(2, "0")}`);
    at += 1;
    from = at;
  }
  parts.push(bytes.toString("utf8", from));
  return parts.join("");
}

/**
 * Bytes of the well-formed UTF-8 sequence that starts at `at`; 0 if none does.
 *
 * By the table of well-formed byte sequences of the Unicode standard (3-7): the lead byte decides
 * the length and, for four of them, a narrower range of the second byte.
 */
function sequenceLength(bytes: Buffer, at: number): number {
  const lead = bytes[at] ?? 0;
  const length = lengthByLead(lead);
  const [low, high] = SECOND_BYTE.get(lead) ?? [0x80, 0xbf];
  for (let index = 1; index < length; index += 1) {
    const byte = bytes[at + index] ?? 0;
    const isGood = index === 1 ? byte >= low && byte <= high : (byte & 0xc0) === 0x80;
    if (!isGood) return 0;
  }
  return length;
}

function lengthByLead(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  if (lead < 0xe0) return 2;
  return lead < 0xf0 ? 3 : 4;
}

/** No overlong forms, no surrogates, nothing beyond U+10FFFF. */
const SECOND_BYTE: ReadonlyMap<number, readonly [low: number, high: number]> = new Map([
  [0xe0, [0xa0, 0xbf]],
  [0xed, [0x80, 0x9f]],
  [0xf0, [0x90, 0xbf]],
  [0xf4, [0x80, 0x8f]],
]);

/** A progress bar redraws its line with carriage returns; only the last picture is worth keeping. */
function lastFrame(text: string): string {
  const frames = text.split("\r").filter((frame) => frame.trim() !== "");
  return frames.at(-1) ?? "";
}
