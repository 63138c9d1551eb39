import { once } from "node:events";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { Reading } from "../model.ts";
import type { NvmlRequest } from "./nvml-thread.ts";
import type { DeviceSource, OpenResult } from "./source.ts";

/**
 * NVML on a thread of its own: one message for each reading costs less than a pool job for each of
 * its calls, and a driver that hangs delays samples and holds nothing else.
 */
export class NvmlDriver implements DeviceSource {
  readonly name = "nvml";
  readonly #thread: Worker;
  readonly #exited: Promise<unknown>;
  /** Readings asked for, oldest first. */
  readonly #asked: PromiseWithResolvers<Reading>[] = [];
  #failure: Error | undefined;

  private constructor(thread: Worker) {
    this.#thread = thread;
    this.#exited = new Promise((resolve) => {
      thread.once("exit", resolve);
    });
    thread.on("message", (reading: Reading) => this.#asked.shift()?.resolve(reading));
    thread.on("error", (error: Error) => this.#fail(error));
    thread.on("exit", () => this.#fail(new Error("The thread of the NVML library has ended")));
  }

  /** The reason, where the library cannot serve here. */
  static async open(path: string): Promise<OpenResult> {
    const own = new URL(import.meta.url);
    // The compiled program has `.js` beside this module, the source `.ts`.
    const file = new URL(`./nvml-thread${extname(own.pathname)}`, own);
    const thread = new Worker(file, { workerData: path, execArgv: [] });
    const ended = once(thread, "exit").then(() => [`${path} ended the thread that loaded it`]);
    const [refusal]: unknown[] = await Promise.race([once(thread, "message"), ended]);
    return typeof refusal === "string" ? refusal : new NvmlDriver(thread);
  }

  /** @throws if the thread died. */
  read(): Promise<Reading> {
    const asked = Promise.withResolvers<Reading>();
    if (this.#failure === undefined) {
      this.#asked.push(asked);
      this.#ask("read");
    } else {
      asked.reject(this.#failure);
    }
    return asked.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ask("close");
    await this.#exited;
  }

  #ask(request: NvmlRequest): void {
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    this.#thread.postMessage(request);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    for (const asked of this.#asked.splice(0)) asked.reject(this.#failure);
  }
}
