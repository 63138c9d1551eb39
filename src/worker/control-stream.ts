import { Socket } from "node:net";
import type { WorkerFrameInput } from "../protocol/index.ts";
import { PROTOCOL_VERSION } from "../protocol/limits.ts";
import { isRecord } from "../util/record.ts";
import { frameLine } from "./frame-line.ts";

/** Where the frames of a worker go. */
export interface FrameSink {
  send(frame: WorkerFrameInput): void;
  /** Resolves when everything sent so far is out of this process. */
  flush?(): Promise<void>;
}

/** Log frames that may wait for a host that does not read; beyond it they are counted. */
const LOG_BUFFER_BYTES = 1024 * 1024;
/** Everything else may wait this long a queue: the host reads always, so this is a broken host. */
const FRAME_BUFFER_BYTES = 8 * 1024 * 1024;
/**
 * Log frames of one turn of the event loop that are written one by one: they arrive even if the tool
 * crashes in the same turn. The rest of a storm is gathered, for a system call costs as much as a record.
 */
const WRITTEN_AT_ONCE = 16;
const GATHER_CHARACTERS = 16 * 1024;
const HELLO_MAX_BYTES = 64 * 1024;
const HELLO_TIMEOUT_MS = 10_000;
const FLUSH_TIMEOUT_MS = 250;

/** The worker's end of the control stream: its identity, its frames, and the host's life. */
export class ControlStream implements FrameSink {
  readonly #socket: Socket;
  readonly #onHostGone: () => void;
  /** Lines of a storm that are not written yet. */
  #gathered = "";
  /** Log frames in this turn of the event loop. */
  #inTurn = 0;
  #dropped = 0;
  #ending = false;

  /** `onHostGone` runs once, at the end of the stream, which only the host's death causes. */
  constructor(fd: number, onHostGone: () => void) {
    this.#socket = new Socket({ fd, readable: true, writable: true });
    this.#onHostGone = onHostGone;
    this.#socket.once("close", () => this.#hostGone());
    this.#socket.once("end", () => this.#hostGone());
    this.#socket.on("error", () => this.#hostGone());
    this.#socket.on("drain", () => this.#reportDropped());
    process.once("exit", () => this.#writeGathered());
  }

  /** Reads the first line; afterwards only the end of the stream means anything. */
  async token(): Promise<string> {
    const line = await this.#firstLine();
    this.#socket.resume();
    return tokenOf(JSON.parse(line));
  }

  #firstLine(): Promise<string> {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    let received = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      received = Buffer.concat([received, chunk]);
      const end = received.indexOf(0x0a);
      if (end >= 0) resolve(received.toString("utf8", 0, end));
      else if (received.length > HELLO_MAX_BYTES) reject(new Error("the hello line never ends"));
    };
    const timer = setTimeout(() => {
      reject(new Error(`no hello within ${HELLO_TIMEOUT_MS} ms`));
    }, HELLO_TIMEOUT_MS);
    this.#socket.on("data", onData);
    return promise.finally(() => {
      clearTimeout(timer);
      this.#socket.off("data", onData);
    });
  }

  send(frame: WorkerFrameInput): void {
    if (this.#ending || !this.#socket.writable) return;
    const limit = frame.type === "log" ? LOG_BUFFER_BYTES : FRAME_BUFFER_BYTES;
    const line = frameLine(frame);
    if (this.#socket.writableLength + this.#gathered.length + line.length > limit) {
      this.#dropped += 1;
      return;
    }
    this.#gathered += line;
    if (frame.type !== "log" || !this.#isStorm() || this.#gathered.length > GATHER_CHARACTERS) {
      this.#writeGathered();
    }
  }

  /** True beyond the first few log frames in one turn of the event loop. */
  #isStorm(): boolean {
    if (this.#inTurn === 0) {
      setImmediate(() => {
        this.#inTurn = 0;
        this.#writeGathered();
      });
    }
    this.#inTurn += 1;
    return this.#inTurn > WRITTEN_AT_ONCE;
  }

  #writeGathered(): void {
    if (this.#gathered === "" || !this.#socket.writable) return;
    this.#socket.write(this.#gathered);
    this.#gathered = "";
  }

  /** At once, unless the host has not read for a while; then not for long. */
  async flush(): Promise<void> {
    this.#writeGathered();
    if (this.#ending || this.#socket.writableLength === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, FLUSH_TIMEOUT_MS);
    this.#socket.write("", () => {
      resolve();
    });
    await promise;
    clearTimeout(timer);
  }

  #reportDropped(): void {
    const n = this.#dropped;
    if (n === 0) return;
    this.#dropped = 0;
    this.send({ type: "dropped", n });
  }

  /** Says goodbye and waits until the host has it, but not for long. */
  async end(code: number): Promise<void> {
    if (this.#ending) return;
    this.#reportDropped();
    this.send({ type: "bye", code });
    this.#ending = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    setTimeout(resolve, FLUSH_TIMEOUT_MS).unref();
    this.#socket.end(() => {
      resolve();
    });
    await promise;
  }

  #hostGone(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#onHostGone();
  }
}

const TOKEN_MIN_LENGTH = 32;

function tokenOf(hello: unknown): string {
  if (isRecord(hello) && hello["type"] === "hello" && hello["protocol"] === PROTOCOL_VERSION) {
    const { token } = hello;
    if (typeof token === "string" && token.length >= TOKEN_MIN_LENGTH) return token;
  }
  throw new Error(`the first line is no hello of protocol ${PROTOCOL_VERSION} with a token`);
}
