import type { Duplex } from "node:stream";
import {
  BODY_LIMITS,
  BodyScanner,
  FRAME_MAX_BYTES,
  PROTOCOL_VERSION,
  workerFrameSchema,
} from "../protocol/index.ts";
import type { WorkerFrame } from "../protocol/index.ts";
import { LineSplitter } from "./line-splitter.ts";
import { RateLimit } from "./rate-limit.ts";

const FRAMES_PER_SECOND = 20_000;

export interface ControlEvents {
  frame(frame: WorkerFrame): void;
  /** A line that is not a frame, or frames that were dropped; for the diagnostics. */
  note(message: string): void;
  /** The worker's end is closed; nothing more will come. */
  ended(): void;
}

/**
 * The host's end of a worker's control stream.
 *
 * Writes the hello, then only reads. It always reads, so a flood cannot block the worker; frames
 * beyond 20,000 a second are dropped and counted. Rubbish is noted, never thrown.
 */
export class ControlStream {
  readonly #socket: Duplex;

  constructor(socket: Duplex, token: string, events: ControlEvents) {
    this.#socket = socket;
    const limit = new RateLimit(FRAMES_PER_SECOND);
    const tellDropped = (): void => {
      const dropped = limit.drainRefused();
      if (dropped > 0) events.note(`${dropped} control frames dropped: over the rate limit`);
    };
    const splitter = new LineSplitter(FRAME_MAX_BYTES, (line, isCut) => {
      if (line.length === 0 || !limit.take()) return;
      tellDropped();
      const frame = isCut ? undefined : parseFrame(line);
      if (frame === undefined) {
        events.note(`not a control frame: ${line.toString("utf8", 0, 200)}`);
      } else {
        events.frame(frame);
      }
    });
    socket.on("data", (chunk: Buffer) => {
      splitter.push(chunk);
    });
    socket.once("close", () => {
      tellDropped();
      events.ended();
    });
    // The worker's death closes the stream with ECONNRESET or EPIPE; its exit tells the story.
    socket.on("error", () => socket.destroy());
    socket.on("end", () => socket.destroy());
    socket.write(`${JSON.stringify({ type: "hello", protocol: PROTOCOL_VERSION, token })}\n`);
  }

  close(): void {
    this.#socket.destroy();
  }
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
