import type {
  Engine,
  EngineCall,
  EngineStatus,
  LoadCall,
  ReleaseEvidence,
  ResolvedAdapter,
  TextInput,
  TextRequest,
} from "../engine.ts";
import type { ParameterName } from "../task/parameters.ts";
import type {
  AppliedAdapter,
  Delta,
  Embeddings,
  Generation,
  ModelCard,
  Score,
} from "../task/schemas.ts";
import { AdapterCache } from "./adapter-cache.ts";
import type { Dialect, Outcome, Piece, ServerFacts } from "./dialects/dialect.ts";
import { notOffered } from "./dialects/generic.ts";
import { failure, reasonOf } from "./failure.ts";
import { Gate } from "./gate.ts";
import { assemble, Stopwatch } from "./generation.ts";
import { orAbort } from "./or-abort.ts";
import { Pieces } from "./pieces.ts";
import type { ServerConnection } from "./connection.ts";
import { verifyHonoured } from "./verify.ts";

/** Calls at once where neither the operator nor the server says. */
const USUAL_SLOTS = 32;
/** After one of these the server may have been restarted, so nothing known of it holds. */
const LOST: ReadonlySet<string | undefined> = new Set(["server_down", "engine_crashed"]);

/** The engine around one model server: slots, life cycle, adapters and checks; a dialect speaks. */
export class ServerEngine implements Engine {
  readonly name = "openai";
  readonly parameters: ReadonlySet<ParameterName>;
  readonly releaseLevels: readonly string[];
  readonly #dialect: Dialect;
  readonly #connection: ServerConnection;
  readonly #gate: Gate;
  readonly #adapters: AdapterCache | undefined;
  #state: EngineStatus["state"] = "unloaded";
  #waking: Promise<void> | undefined;
  #version = "unknown";
  #idleTimer: NodeJS.Timeout | undefined;

  constructor(dialect: Dialect, connection: ServerConnection) {
    const { config } = connection;
    this.#dialect = dialect;
    this.#connection = connection;
    this.parameters = dialect.parameters;
    const ends = connection.isManaged ? ["unload"] : [];
    this.releaseLevels = [...new Set([...dialect.releaseLevels, ...ends])];
    this.#gate = new Gate(config.max_concurrent ?? USUAL_SLOTS);
    const drainMs = config.drain_seconds * 1000;
    const shared = (): AbortSignal => connection.life;
    const support = dialect.adapters;
    this.#adapters = support && new AdapterCache(support, shared, drainMs);
  }

  get version(): string {
    return `${this.#dialect.kind} ${this.#version}`;
  }

  async *stream(request: TextRequest, call: EngineCall): AsyncGenerator<Delta, Generation, void> {
    this.#refuse(request);
    const watch = new Stopwatch();
    using _place = await this.#enter(call.signal);
    watch.admitted();
    const facts = await this.#ready(call.signal);
    const signal = AbortSignal.any([call.signal, this.#connection.life]);
    const pieces = new Pieces();
    try {
      const made = yield* this.#generate(request, facts, { signal, pieces, watch });
      const rest = pieces.end();
      if (rest !== undefined) yield rest;
      const { text, logprobs } = pieces;
      verifyHonoured(request, { text, logprobs, outcome: made.outcome });
      this.#state = "loaded";
      const { name, version } = this;
      return assemble({ request, pieces, watch, ...made, engine: { name, version } });
    } catch (error) {
      throw await this.#noted(error, call.signal);
    }
  }

  async embed(
    input: readonly string[],
    options: { readonly normalize: boolean },
    call: EngineCall,
  ): Promise<Embeddings> {
    return this.#run(call, (facts, signal) => {
      if (this.#dialect.embed === undefined) throw notOffered("embed", this.#dialect.kind);
      return this.#dialect.embed(input, options, facts, signal);
    });
  }

  async score(
    request: { prompt: string; top: number; adapters: readonly ResolvedAdapter[] },
    call: EngineCall,
  ): Promise<Score> {
    if (this.#dialect.score === undefined) throw notOffered("score", this.#dialect.kind);
    const score = this.#dialect.score.bind(this.#dialect);
    return this.#run(call, async (facts, signal) => {
      using _held = await this.#adapters?.use(request.adapters, facts, signal);
      return await score(request, facts, signal);
    });
  }

  async countTokens(input: TextInput, call: EngineCall): Promise<number> {
    return this.#run(call, (facts, signal) => this.#dialect.countTokens(input, facts, signal));
  }

  async loadAdapter(adapter: ResolvedAdapter, call: LoadCall): Promise<number | null> {
    const adapters = this.#needAdapters();
    call.progress(-1, `loading ${adapter.id}`);
    const whole = [{ ...adapter, scale: 1 }];
    return this.#run(call, async (facts, signal) => {
      using _held = await adapters.use(whole, facts, signal);
      return await adapters.effect(whole, facts, signal);
    });
  }

  async unloadAdapter({ sha256 }: AppliedAdapter): Promise<string> {
    const adapters = this.#needAdapters();
    const call = { signal: this.#connection.ending };
    return this.#run(call, (facts) => adapters.unload(sha256, facts));
  }

  async card(): Promise<ModelCard> {
    const unknown = {
      id: this.#connection.config.model ?? this.#dialect.kind,
      path: null,
      format: "server",
      architecture: null,
      quantization: null,
      parameters: null,
      bytes: null,
      context_length: null,
      chat_template: null,
      sha256: null,
    } as const;
    if (this.#connection.isManaged && !this.#connection.isRunning) return unknown;
    const facts = await this.#connect(this.#connection.ending);
    return { ...unknown, ...(await this.#dialect.card(facts, this.#connection.life)) };
  }

  async prefetch(call: LoadCall): Promise<void> {
    if (this.#state === "unloaded") this.#state = "loading";
    try {
      await this.#run(call, (facts, signal) =>
        this.#dialect.prefetch(facts, { signal, progress: call.progress }),
      );
      this.#state = "loaded";
    } finally {
      if (this.#state === "loading") this.#state = "unloaded";
    }
  }

  async release(level: string): Promise<ReleaseEvidence> {
    if (!this.releaseLevels.includes(level)) {
      const known = this.releaseLevels.join(", ") || "none";
      throw failure(
        "method_unsupported",
        `${this.#dialect.kind} has no release "${level}"; it has: ${known}`,
      );
    }
    using _closed = await this.#gate.drain(this.#connection.config.drain_seconds * 1000);
    if (level === "unload" && this.#connection.isManaged) {
      const evidence = await this.#connection.stop();
      this.#forget();
      return evidence;
    }
    const facts = await this.#connect(this.#connection.ending);
    const evidence = await this.#dialect.release(level, facts);
    this.#state = this.#dialect.isAsleep() ? "asleep" : "unloaded";
    return evidence;
  }

  status(): EngineStatus {
    const { active, waiting, slots } = this.#gate;
    const adapters = this.#adapters?.ids ?? [];
    const loads = this.#connection.starts + (this.#adapters?.loads ?? 0);
    return { state: this.#state, active, waiting, slots, adapters, loads };
  }

  async close(): Promise<void> {
    clearTimeout(this.#idleTimer);
    try {
      // A server of somebody else is left awake, as it was found.
      const facts = this.#connection.known;
      if (facts !== undefined && !this.#connection.isManaged) await this.#dialect.wake(facts);
    } finally {
      await this.#connection.close();
      this.#forget();
    }
  }

  /** Takes a slot; the last to leave begins the time after which a managed server is ended. */
  async #enter(signal: AbortSignal): Promise<Disposable> {
    using place = new DisposableStack();
    place.defer(() => {
      this.#watchIdle();
    });
    place.use(await this.#gate.enter(signal));
    clearTimeout(this.#idleTimer);
    return place.move();
  }

  #watchIdle(): void {
    const { config, link, isRunning } = this.#connection;
    const seconds = config.managed?.idle_unload_seconds ?? 0;
    clearTimeout(this.#idleTimer);
    if (seconds === 0 || !isRunning || this.#gate.active > 0) return;
    this.#idleTimer = setTimeout(() => {
      this.release("unload").catch((error: unknown) => {
        link.log(`ending an idle server failed (${reasonOf(error) ?? String(error)})`);
      });
    }, seconds * 1000).unref();
  }

  #refuse(request: TextRequest): void {
    const refused = this.#dialect.refuse(request);
    if (refused.length === 0) return;
    const words = refused.map(({ field, why }) => `${field} (${why})`).join(", ");
    throw failure("parameter_unsupported", `${this.#dialect.kind} does not honour ${words}`, {
      fields: [...new Set(refused.map(({ field }) => field))],
    });
  }

  /** One generation; a server that has lost its adapters gets them once more, before any text. */
  async *#generate(
    request: TextRequest,
    facts: ServerFacts,
    { signal, pieces, watch }: { signal: AbortSignal; pieces: Pieces; watch: Stopwatch },
  ): AsyncGenerator<Delta, { outcome: Outcome; effect: number | null }, void> {
    for (let isRetry = false; ; isRetry = true) {
      try {
        using _held = await this.#adapters?.use(request.adapters, facts, signal);
        const effect = (await this.#adapters?.effect(request.adapters, facts, signal)) ?? null;
        const outcome = yield* this.#attempt(request, facts, { signal, pieces, watch });
        return { outcome, effect };
      } catch (error) {
        const isForgotten = this.#dialect.adapters?.isForgotten(error) === true;
        const isAgain = !isRetry && request.adapters.length > 0 && !watch.hasText;
        if (!isForgotten || !isAgain) throw error;
        this.#adapters?.clear();
      }
    }
  }

  async *#attempt(
    request: TextRequest,
    facts: ServerFacts,
    { signal, pieces, watch }: { signal: AbortSignal; pieces: Pieces; watch: Stopwatch },
  ): AsyncGenerator<Delta, Outcome, void> {
    const left = new AbortController();
    const both = AbortSignal.any([signal, left.signal]);
    const source: AsyncIterator<Piece, Outcome> = this.#dialect.generate(request, facts, {
      signal: both,
    });
    try {
      for (;;) {
        const next = await orAbort(source.next(), signal);
        if (next.done === true) return next.value;
        watch.text();
        const delta = pieces.take(next.value);
        if (delta !== undefined) yield delta;
      }
    } finally {
      // Closes the connection, which is what frees the server's slot.
      left.abort();
      source.return?.().catch(() => undefined);
    }
  }

  /** Runs what needs the server, in a slot. */
  async #run<T>(
    call: EngineCall,
    work: (facts: ServerFacts, signal: AbortSignal) => Promise<T>,
  ): Promise<T> {
    using _place = await this.#enter(call.signal);
    const facts = await this.#ready(call.signal);
    const signal = AbortSignal.any([call.signal, this.#connection.life]);
    try {
      return await orAbort(work(facts, signal), signal);
    } catch (error) {
      throw await this.#noted(error, call.signal);
    }
  }

  /** The server, awake. */
  async #ready(signal: AbortSignal): Promise<ServerFacts> {
    const facts = await this.#connect(signal);
    if (!this.#dialect.isAsleep()) return facts;
    this.#waking ??= this.#dialect.wake(facts).finally(() => {
      this.#waking = undefined;
    });
    try {
      await orAbort(this.#waking, signal);
    } catch (error) {
      throw await this.#noted(error, signal);
    }
    this.#state = "loaded";
    return facts;
  }

  async #connect(signal: AbortSignal): Promise<ServerFacts> {
    if (this.#connection.known === undefined) this.#forget();
    const facts = await this.#connection.facts((life) => this.#dialect.connect(life), signal);
    this.#version = facts.version ?? "unknown";
    const slots = this.#connection.config.max_concurrent ?? facts.slots ?? USUAL_SLOTS;
    if (slots !== this.#gate.slots) this.#gate.resize(slots);
    return facts;
  }

  #needAdapters(): AdapterCache {
    if (this.#adapters !== undefined) return this.#adapters;
    throw notOffered("LoRA adapters at run time", `a ${this.#dialect.kind} server`);
  }

  /** The reason of an ended call comes first; a lost server is forgotten. */
  async #noted(error: unknown, signal: AbortSignal): Promise<unknown> {
    if (signal.aborted) return signal.reason;
    if (!LOST.has(reasonOf(error))) return error;
    const lastWords = await this.#connection.lastWords();
    this.#forget();
    return lastWords ?? error;
  }

  #forget(): void {
    this.#connection.forget();
    this.#adapters?.clear();
    if (this.#state !== "loading") this.#state = "unloaded";
  }
}
