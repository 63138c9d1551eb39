import type { Readable } from "node:stream";
import { countLines, joinLines, type LineBlock } from "../util/lines.ts";
import { LineSplitter } from "./line-splitter.ts";
import { RateLimit } from "./rate-limit.ts";
import { StreamReader } from "./stream-reader.ts";

const LINE_MAX_BYTES = 64 * 1024;
const RATE = { lines: 50_000, bytes: 16 * 1024 * 1024 } as const;

export type OutputStream = "stdout" | "stderr";

/**
 * Reads one output stream of a worker to its end, so that a worker that prints never blocks.
 *
 * Lines go to `onLines` as they came, a chunk at a time: decoding them is left to who keeps them.
 * Beyond 50,000 lines or 16 MiB a second lines are dropped and counted in a line of their own.
 */
export class OutputPump {
  readonly #reader: StreamReader;

  constructor(stream: Readable, onLines: (lines: LineBlock) => void) {
    const limit = new RateLimit(RATE);
    const tellDropped = (): void => {
      const dropped = limit.drainRefused();
      if (dropped > 0) onLines(joinLines([Buffer.from(dropNote(dropped))], 1));
    };
    const splitter = new LineSplitter(LINE_MAX_BYTES, (block) => {
      const passed = limit.take(countLines(block), block.length);
      if (passed === 0) return;
      tellDropped();
      onLines(joinLines([block], passed));
    });
    this.#reader = new StreamReader(stream, {
      chunk: (bytes) => {
        splitter.push(bytes);
      },
      ended: () => {
        splitter.end();
        tellDropped();
      },
    });
  }

  /** As {@link StreamReader.drain}. */
  async drain(): Promise<void> {
    await this.#reader.drain();
  }
}

function dropNote(dropped: number): string {
  const { lines, bytes } = RATE;
  return `[${dropped} lines dropped: more than ${lines}, or ${bytes} bytes, a second]\n`;
}
