import type { Duplex } from "node:stream";
import {
  beginsAsLogFrame,
  BODY_LIMITS,
  BodyScanner,
  FRAME_MAX_BYTES,
  notAFrame,
  PROTOCOL_VERSION,
  workerFrameSchema,
} from "../protocol/index.ts";
import type { WorkerFrame } from "../protocol/index.ts";
import { joinLines, type LineBlock } from "../util/lines.ts";
import { LineSplitter } from "./line-splitter.ts";
import { RateLimit } from "./rate-limit.ts";
import { StreamReader } from "./stream-reader.ts";

const NEWLINE = 0x0a;
const LOG_RATE = { lines: 50_000, bytes: 16 * 1024 * 1024 } as const;
/**
 * A frame that is no log is parsed and acted on here, which costs several times as much. Its window is
 * short: a chunk may hold thirty thousand lines, and what one costs the event loop must wait for none.
 */
const FRAME_RATE = { lines: 2_000, bytes: 2 * 1024 * 1024, windowMs: 100 } as const;
/** What is looked at byte by byte before the rest of a line is searched, which pays for long ones. */
const LOOK_BYTES = 32;

/** Every frame but a log record. */
export type ActiveFrame = Exclude<WorkerFrame, { type: "log" }>;

export interface ControlEvents {
  frame(frame: ActiveFrame): void;
  /** Log frames as they came, a chunk at a time, not parsed: some may turn out to be none. */
  logs(lines: LineBlock): void;
  /** A line that is not a frame, or frames that were dropped; for the diagnostics. */
  note(message: string): void;
  /** The worker's end is closed; nothing more will come. */
  ended(): void;
}

/**
 * The host's end of a worker's control stream.
 *
 * Writes the hello, then only reads. It always reads, so a flood cannot block the worker; log frames
 * beyond 50,000 and 16 MiB a second, and others beyond 2,000 and 2 MiB in 100 ms, are dropped and counted.
 * Rubbish is noted, never thrown. Logs are delivered after the other frames of the same chunk.
 */
export class ControlStream {
  readonly #socket: Duplex;
  readonly #events: ControlEvents;
  readonly #reader: StreamReader;
  readonly #logLimit = new RateLimit(LOG_RATE);
  readonly #frameLimit = new RateLimit(FRAME_RATE);

  constructor(socket: Duplex, token: string, events: ControlEvents) {
    this.#socket = socket;
    this.#events = events;
    const splitter = new LineSplitter(FRAME_MAX_BYTES, (block) => {
      this.#onLines(block);
    });
    // The worker's death closes the stream with ECONNRESET or EPIPE; its exit tells the story.
    this.#reader = new StreamReader(socket, {
      chunk: (bytes) => {
        splitter.push(bytes);
      },
      ended: () => {
        this.#tellDropped();
        events.ended();
      },
    });
    socket.write(`${JSON.stringify({ type: "hello", protocol: PROTOCOL_VERSION, token })}\n`);
  }

  close(): void {
    this.#socket.destroy();
  }

  /** As {@link StreamReader.drain}. */
  async drain(): Promise<void> {
    await this.#reader.drain();
  }

  #onLines(block: Buffer): void {
    const logs: Buffer[] = [];
    let [logCount, frames, frameBytes, refused] = [0, 0, 0, 0];
    const framesLeft = this.#frameLimit.left();
    let runStart = 0;
    for (let start = 0, end = 0; start < block.length; start = end) {
      end = lineEnd(block, start) + 1;
      if (beginsAsLogFrame(block, start)) {
        logCount += 1;
        continue;
      }
      if (start > runStart) logs.push(block.subarray(runStart, start));
      runStart = end;
      if (end - start === 1) continue;
      if (frames === framesLeft) {
        refused += 1;
        continue;
      }
      frames += 1;
      frameBytes += end - start;
      if (!this.#onFrame(block.subarray(start, end - 1))) continue;
      logCount += 1;
      runStart = start;
    }
    if (runStart < block.length) logs.push(block.subarray(runStart));
    this.#frameLimit.use(frames, frameBytes, refused);
    if (logCount > 0) this.#onLogs(logs, logCount);
  }

  #onLogs(logs: readonly Buffer[], count: number): void {
    const bytes = logs.reduce((sum, part) => sum + part.length, 0);
    const passed = this.#logLimit.take(count, bytes);
    if (passed === 0) return;
    this.#tellDropped();
    this.#events.logs(joinLines(logs, passed));
  }

  /** True for a log record that does not begin as the SDKs write it. */
  #onFrame(line: Buffer): boolean {
    this.#tellDropped();
    const frame = parseFrame(line);
    if (frame === undefined) this.#events.note(notAFrame(line.toString("utf8", 0, 800)));
    else if (frame.type === "log") return true;
    else this.#events.frame(frame);
    return false;
  }

  #tellDropped(): void {
    const dropped = this.#logLimit.drainRefused() + this.#frameLimit.drainRefused();
    if (dropped > 0) this.#events.note(`${dropped} control frames dropped: over the rate limit`);
  }
}

function lineEnd(block: Buffer, start: number): number {
  for (let at = start; at < start + LOOK_BYTES; at += 1) if (block[at] === NEWLINE) return at;
  return block.indexOf(NEWLINE, start + LOOK_BYTES);
}

/** Nesting is bounded before it is parsed: what walks a payload later does so by recursion. */
function parseFrame(line: Buffer): WorkerFrame | undefined {
  if (new BodyScanner(BODY_LIMITS).push(line) !== undefined) return undefined;
  try {
    const parsed = workerFrameSchema.safeParse(JSON.parse(line.toString("utf8")));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}
