import { isDeepStrictEqual } from "node:util";
import type { MonitorConfig } from "./config.ts";
import type { Sample } from "./model.ts";
import { Monitor } from "./monitor.ts";
import { openSource } from "./sources/open.ts";

/** Answers to single questions may share a reading this old. */
const FRESH_MS = 50;

/** Opens the source on first use and again when the configuration changed. */
export class Watchtower {
  readonly #hostPid: number;
  #config: MonitorConfig;
  #opened: Promise<Monitor> | undefined;

  constructor(config: MonitorConfig, hostPid: number) {
    this.#config = config;
    this.#hostPid = hostPid;
  }

  async configure(config: MonitorConfig): Promise<void> {
    if (!isDeepStrictEqual(config, this.#config)) await this.close();
    this.#config = config;
  }

  async monitor(): Promise<Monitor> {
    this.#opened ??= openSource(this.#config).then((source) => new Monitor(source, this.#hostPid));
    try {
      return await this.#opened;
    } catch (error) {
      // The next call tries again: a driver may come up later.
      this.#opened = undefined;
      throw error;
    }
  }

  async sample(): Promise<Sample> {
    return (await this.monitor()).sample(FRESH_MS);
  }

  async close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    await (await opened?.catch(() => undefined))?.[Symbol.asyncDispose]();
  }
}
