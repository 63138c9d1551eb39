import { Socket } from "node:net";
import type { buildConnector } from "undici";
import { type LoopTurn, loopTurn } from "./loop-turn.ts";

/**
 * Bytes that the HTTP parser gets at once. It takes a step for each header and each chunk of a body,
 * and makes an error for every header after the last one it allows: a piece bounds them all.
 */
const PIECE_BYTES = 4 * 1024;
const CONNECT_MS = 10_000;

/**
 * A connection whose reader cannot be kept busy: each `read` gives a small piece, none when this turn
 * of the event loop is used up, and none after the end. The reader hears of the rest by `readable`.
 *
 * undici reads until nothing is left, and libuv reads on for as long as there is a reader: without
 * this, headers without end or chunks of one byte hold the event loop for hundreds of milliseconds.
 */
export class PacedSocket extends Socket {
  readonly #turn: LoopTurn;
  #isWaiting = false;

  constructor(turn: LoopTurn = loopTurn) {
    super();
    this.#turn = turn;
  }

  override read(size?: number): Buffer | null {
    if (size !== undefined || this.readableLength === 0) return chunkOf(super.read(size));
    // undici's parser goes on until the stream closes, which is later.
    if (this.destroyed) return null;
    if (this.#turn.hasTime) return chunkOf(super.read(Math.min(this.readableLength, PIECE_BYTES)));
    if (!this.#isWaiting) {
      this.#isWaiting = true;
      this.#turn.wait(() => {
        this.#isWaiting = false;
        this.emit("readable");
      });
    }
    return null;
  }
}

function chunkOf(read: unknown): Buffer | null {
  return Buffer.isBuffer(read) ? read : null;
}

/** Makes the connections of a pool to one worker. */
export function pacedConnector(
  place: { readonly path: string } | { readonly host: string; readonly port: number },
): buildConnector.connector {
  return (_options, callback) => {
    const socket = new PacedSocket();
    const fail = (error: Error): void => {
      callback(error, null);
    };
    socket.setNoDelay(true);
    socket.setTimeout(CONNECT_MS, () => socket.destroy(new Error("It takes no connection")));
    socket.once("error", fail);
    socket.connect(place, () => {
      socket.setTimeout(0);
      socket.off("error", fail);
      callback(null, socket);
    });
  };
}
