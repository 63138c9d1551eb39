import { randomBytes } from "node:crypto";
import type { ReleaseEvidence } from "../engine.ts";
import { addressOf, type Address, type OpenAiConfig, type ServerKind } from "./config.ts";
import type { Link, ServerFacts } from "./dialects/dialect.ts";
import { failure, reasonOf } from "./failure.ts";
import { HttpClient } from "./http/client.ts";
import { orAbort, pause, until } from "./or-abort.ts";
import { keyVariable, ServerChild } from "./server/child.ts";

/** What the worker gives the backend. */
export interface OpenAiPorts {
  readonly log: (message: string) => void;
  /** Sent as `Authorization: Bearer`; never logged. */
  readonly apiKey?: string;
  /**
   * VRAM in MB that the server holds, by measurement. Absent: that of a managed server by the driver;
   * a server of somebody else is not measured.
   */
  readonly measureVramMb?: () => Promise<number | undefined>;
}

/** How long a broken connection waits for the end of its server to be known. */
const LAST_WORDS_MS = 100;
/** How often a starting server is asked whether it is ready. */
const READY_STEP_MS = 100;
const SETTLE_STEP_MS = 50;

/** The way to one server: its program where the worker manages it, its address, its facts. */
export class ServerConnection {
  readonly config: OpenAiConfig;
  readonly link: Link;
  readonly #http: HttpClient;
  readonly #child: ServerChild | undefined;
  readonly #ports: OpenAiPorts;
  readonly #ending = new AbortController();
  #life: AbortSignal;
  #address: Address;
  #connecting: Promise<ServerFacts> | undefined;
  #known: ServerFacts | undefined;
  /** Times the server was found or started. */
  starts = 0;

  constructor(config: OpenAiConfig, ports: OpenAiPorts) {
    this.config = config;
    this.#ports = ports;
    this.#address = addressOf(config, undefined);
    this.#life = this.#ending.signal;
    const { managed } = config;
    const key = ports.apiKey ?? (managed === null ? undefined : ownKey(config.server));
    this.#http = new HttpClient(
      {
        connectMs: config.connect_seconds * 1000,
        firstMs: config.first_token_seconds * 1000,
        idleMs: config.idle_seconds * 1000,
        maxBytes: config.max_response_mb * 1024 * 1024,
        connections: (config.max_concurrent ?? 256) + 8,
      },
      key,
    );
    const { log } = ports;
    this.#child =
      managed === null ? undefined : new ServerChild(managed, config.server, { log, key });
    const address = (): Address => this.#address;
    this.link = {
      http: this.#http,
      config,
      get address() {
        return address();
      },
      log: ports.log,
      measureVramMb: ports.measureVramMb ?? (async () => await this.#child?.vramMb()),
    };
  }

  get isManaged(): boolean {
    return this.#child !== undefined;
  }
  get isRunning(): boolean {
    return this.#child?.running !== undefined;
  }
  /** What the server said of itself; undefined until it has, or after it was lost. */
  get known(): ServerFacts | undefined {
    return this.#child !== undefined && !this.isRunning ? undefined : this.#known;
  }
  /** Aborts when the server is gone, or the backend ends. */
  get life(): AbortSignal {
    return this.#life;
  }
  /** Aborts when the backend ends. */
  get ending(): AbortSignal {
    return this.#ending.signal;
  }

  /** What the server is; starts it, and asks it once, however many want to know. */
  async facts(
    ask: (signal: AbortSignal) => Promise<ServerFacts>,
    signal: AbortSignal,
  ): Promise<ServerFacts> {
    if (this.known !== undefined) return this.known;
    this.#connecting ??= this.#connect(ask).finally(() => {
      this.#connecting = undefined;
    });
    return orAbort(this.#connecting, signal);
  }

  /**
   * What the managed program's end says, which is more than a broken connection does and comes a
   * moment after it; undefined where it goes on.
   */
  async lastWords(): Promise<unknown> {
    const gone = this.#child?.running?.gone;
    if (gone === undefined) return undefined;
    await pause(LAST_WORDS_MS, gone);
    return gone.aborted ? gone.reason : undefined;
  }

  forget(): void {
    this.#known = undefined;
  }

  /** Ends the managed program. */
  async stop(): Promise<ReleaseEvidence> {
    const before = await this.link.measureVramMb();
    await this.#child?.stop();
    this.forget();
    if (before === undefined) return { held: "" };
    let left: number | undefined = before;
    // The driver frees what a killed process held a moment after its end.
    const isFreed = async (): Promise<boolean> => {
      left = await this.link.measureVramMb();
      return left === undefined || left === 0;
    };
    const ms = this.config.settle_seconds * 1000;
    await until(isFreed, { ms, stepMs: SETTLE_STEP_MS, signal: this.#ending.signal });
    if (left === undefined) return { held: "" };
    return { held: left === 0 ? "" : `${left} MB of VRAM`, freedMb: Math.max(0, before - left) };
  }

  async close(): Promise<void> {
    this.#ending.abort(failure("engine_crashed", "the engine was closed"));
    await this.#child?.stop();
    await this.#http.close();
  }

  async #connect(ask: (signal: AbortSignal) => Promise<ServerFacts>): Promise<ServerFacts> {
    this.#ending.signal.throwIfAborted();
    if (this.#child === undefined) {
      this.#known = await ask(this.#ending.signal);
    } else {
      this.#known = await this.#ofChild(this.#child, ask);
    }
    this.starts += 1;
    return this.#known;
  }

  /** A program may be dying already when a call finds it running; then it is started anew. */
  async #ofChild(
    child: ServerChild,
    ask: (signal: AbortSignal) => Promise<ServerFacts>,
  ): Promise<ServerFacts> {
    const wasRunning = child.running !== undefined;
    try {
      return await this.#startChild(child, ask);
    } catch (error) {
      const isGone = wasRunning && child.running === undefined;
      if (!isGone || this.#ending.signal.aborted) throw error;
      return this.#startChild(child, ask);
    }
  }

  async #startChild(
    child: ServerChild,
    ask: (signal: AbortSignal) => Promise<ServerFacts>,
  ): Promise<ServerFacts> {
    const running = child.running ?? (await child.start());
    this.#address = addressOf(this.config, running.port);
    this.#life = AbortSignal.any([this.#ending.signal, running.gone]);
    const life = this.#life;
    const seconds = this.config.managed?.ready_seconds ?? 0;
    const end = performance.now() + seconds * 1000;
    while (performance.now() < end) {
      life.throwIfAborted();
      const facts = await askStarting(ask, life);
      if (facts !== undefined) return facts;
      await pause(READY_STEP_MS, life);
    }
    await child.stop();
    this.#ports.log(`the server was ended: it did not answer in ${seconds} s`);
    throw failure("server_hangs", `the server did not answer in ${seconds} s after its start`);
  }
}

/** A key for a server that serves nobody but this worker; undefined where it cannot ask for one. */
function ownKey(kind: ServerKind): string | undefined {
  return keyVariable(kind) === undefined ? undefined : randomBytes(24).toString("base64url");
}

/** Undefined while the server starts: it refuses connections, or answers 503. */
async function askStarting(
  ask: (signal: AbortSignal) => Promise<ServerFacts>,
  life: AbortSignal,
): Promise<ServerFacts | undefined> {
  try {
    return await ask(life);
  } catch (error) {
    life.throwIfAborted();
    const reason = reasonOf(error);
    if (reason === "server_down" || reason === "server_busy" || reason === "engine_crashed") {
      return undefined;
    }
    throw error;
  }
}
