import { Socket } from "node:net";

/** What was kept of one stream. */
export interface CapturedOutput {
  readonly bytes: Buffer;
  readonly totalBytes: number;
}

/** Who gets what is read. */
export interface OutputSink {
  readonly limitBytes: number;
  /** Gets what is kept, as it comes. */
  onData?(bytes: Buffer): void;
  /** Called once, when the first byte over the limit arrives. */
  onOverflow?(): void;
}

const READ_BYTES = 65_536;

/** A stream as text, and as base64 beside it when it was not UTF-8. */
export interface DecodedOutput {
  readonly text: string;
  readonly base64: string | undefined;
}

/**
 * Reads one end of a pipe to its end, keeping at most its sink's `limitBytes`; without a sink,
 * nothing.
 *
 * What comes after the limit is read and thrown away, so that the writer never blocks on us and a
 * writer without end costs no memory.
 */
export class OutputCapture {
  readonly #socket: Socket;
  readonly #kept: Buffer[] = [];
  readonly #ended = Promise.withResolvers<void>();
  #keptBytes = 0;
  #totalBytes = 0;
  #isDrained = false;
  #sink: OutputSink = { limitBytes: 0 };

  /** Takes ownership of the descriptor. */
  constructor(fd: number) {
    const buffer = Buffer.allocUnsafe(READ_BYTES);
    const callback = (count: number): boolean => {
      this.#take(buffer.subarray(0, count));
      return true;
    };
    this.#socket = new Socket({
      fd,
      readable: true,
      writable: false,
      onread: { buffer, callback },
    });
    this.#socket.on("error", () => undefined);
    this.#socket.on("end", () => {
      this.#isDrained = true;
    });
    this.#socket.on("close", () => this.#ended.resolve());
    this.#socket.resume();
  }

  /** Call it before anything is written. */
  deliverTo(sink: OutputSink): void {
    this.#sink = sink;
  }

  /** True once the stream has come to its end, so that nobody holds it any more. */
  get isDrained(): boolean {
    return this.#isDrained;
  }

  /** Resolves at the end of the stream, or after `graceMs` if a writer still holds it. */
  async finish(graceMs: number): Promise<CapturedOutput> {
    const timer = setTimeout(() => this.#socket.destroy(), graceMs);
    await this.#ended.promise;
    clearTimeout(timer);
    return { bytes: Buffer.concat(this.#kept, this.#keptBytes), totalBytes: this.#totalBytes };
  }

  #take(bytes: Buffer): void {
    const { limitBytes } = this.#sink;
    const wasWithin = this.#totalBytes <= limitBytes;
    this.#totalBytes += bytes.length;
    const room = limitBytes - this.#keptBytes;
    if (room > 0) {
      const kept = Buffer.from(bytes.subarray(0, room));
      this.#kept.push(kept);
      this.#keptBytes += kept.length;
      this.#sink.onData?.(kept);
    }
    if (wasWithin && this.#totalBytes > limitBytes) this.#sink.onOverflow?.();
  }
}

const strict = new TextDecoder("utf-8", { fatal: true });

/**
 * Bytes as text. Bytes that are not UTF-8 become `\\xNN` in the text and the whole is added as
 * base64; a character that the limit cut in two is left out of the text and is no reason for that.
 */
export function decodeOutput({ bytes, totalBytes }: CapturedOutput): DecodedOutput {
  const isCut = totalBytes > bytes.length;
  const whole = isCut ? bytes.subarray(0, lastCharacterEnd(bytes)) : bytes;
  try {
    return { text: strict.decode(whole), base64: undefined };
  } catch {
    return { text: escapeInvalid(bytes), base64: bytes.toString("base64") };
  }
}

/** Where the last whole UTF-8 character ends. */
function lastCharacterEnd(bytes: Buffer): number {
  let start = bytes.length - 1;
  while (start > 0 && start > bytes.length - 4 && ((bytes[start] ?? 0) & 0xc0) === 0x80) start -= 1;
  const lead = bytes[start] ?? 0;
  const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 1;
  return start + length <= bytes.length ? bytes.length : start;
}

/** Decodes run by run; a byte that begins no valid character is written as `\\xNN`. */
function escapeInvalid(bytes: Buffer): string {
  const parts: string[] = [];
  let index = 0;
  while (index < bytes.length) {
    const length = validLength(bytes, index);
    if (length === 0) parts.push(`\\x${(bytes[index] ?? 0).toString(16).padStart(2, "0")}`);
    else parts.push(bytes.toString("utf8", index, index + length));
    index += Math.max(1, length);
  }
  return parts.join("");
}

/** Length of the valid character at `index`, 0 if there is none. */
function validLength(bytes: Buffer, index: number): number {
  const lead = bytes[index] ?? 0;
  if (lead < 0x80) return 1;
  const length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || index + length > bytes.length) return 0;
  try {
    strict.decode(bytes.subarray(index, index + length));
    return length;
  } catch {
    return 0;
  }
}
