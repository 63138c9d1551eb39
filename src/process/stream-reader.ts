import type { Readable } from "node:stream";
import { type LoopTurn, loopTurn } from "./loop-turn.ts";

const DRAIN_AFTER_EXIT_MS = 250;

export interface StreamEvents {
  readonly chunk: (bytes: Buffer) => void;
  /** Nothing more will come. */
  readonly ended: () => void;
}

/**
 * Reads a stream of a worker to its end, within the part of each turn of the event loop that all
 * workers share: libuv reads on for as long as there is something, which a flood makes two megabytes.
 */
export class StreamReader {
  readonly #stream: Readable;
  readonly #ended: Promise<void>;
  #isDraining = false;

  constructor(stream: Readable, { chunk, ended }: StreamEvents, turn: LoopTurn = loopTurn) {
    this.#stream = stream;
    stream.on("data", (bytes: Buffer) => {
      chunk(bytes);
      if (this.#isDraining || turn.hasTime) return;
      stream.pause();
      turn.wait(() => stream.resume());
    });
    this.#ended = new Promise((resolve) => {
      stream.once("close", () => {
        ended();
        resolve();
      });
    });
    // An error on a pipe of a process that is ending says nothing that its exit does not.
    stream.on("error", () => stream.destroy());
    stream.on("end", () => stream.destroy());
  }

  /** Reads until the pipe is empty or 250 ms have passed; a grandchild may hold it for ever. */
  async drain(): Promise<void> {
    // What a pipe still holds is little, and must not wait for its turn until the time is up.
    this.#isDraining = true;
    this.#stream.resume();
    const timer = setTimeout(() => this.#stream.destroy(), DRAIN_AFTER_EXIT_MS);
    await this.#ended;
    clearTimeout(timer);
  }
}
