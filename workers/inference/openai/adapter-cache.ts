import type { ResolvedAdapter } from "../engine.ts";
import type { AdapterSupport, Distribution, ServerFacts } from "./dialects/dialect.ts";
import { largestChange } from "./dialects/probe.ts";
import { failure } from "./failure.ts";
import { Gate } from "./gate.ts";
import { orAbort } from "./or-abort.ts";
import { changesNothing } from "./peft-content.ts";

interface Held {
  readonly id: string;
  readonly ready: Promise<void>;
  /** Calls that use it; unloading waits for them. */
  readonly users: Gate;
}

/** Combinations of adapters and scales whose effect is remembered. */
const MAX_EFFECTS = 256;
/** Largest difference of one log-probability between two runs of the same model. */
const NOISE = 0.05;
/** Below it an adapter did nothing. */
const NOTHING = 1e-7;

/**
 * The adapters that the server holds, by content: each is loaded once, however many calls want it,
 * and its effect on the model is measured once.
 */
export class AdapterCache {
  readonly #support: AdapterSupport;
  readonly #shared: () => AbortSignal;
  readonly #drainMs: number;
  readonly #held = new Map<string, Held>();
  readonly #effects = new Map<string, Promise<number | null>>();
  #base: Promise<Distribution | undefined> | undefined;
  /** Loads since the start. */
  loads = 0;

  /** `shared` ends with the server, not with one call: what many calls wait for outlives each. */
  constructor(support: AdapterSupport, shared: () => AbortSignal, drainMs: number) {
    this.#support = support;
    this.#shared = shared;
    this.#drainMs = drainMs;
  }

  get ids(): readonly string[] {
    return [...this.#held.values()].map(({ id }) => id);
  }

  /** Forgets everything: the server that knew it is gone. */
  clear(): void {
    this.#held.clear();
    this.#effects.clear();
    this.#base = undefined;
  }

  /** Holds these adapters for one call; dispose of the result when it has ended. */
  async use(
    adapters: readonly ResolvedAdapter[],
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<Disposable> {
    using stack = new DisposableStack();
    for (const adapter of adapters) {
      const held = this.#hold(adapter, facts);
      await orAbort(held.ready, signal);
      stack.use(await held.users.enter(signal));
    }
    return stack.move();
  }

  /** What the adapters change on a fixed text; null for none, or where it cannot be measured. */
  async effect(
    adapters: readonly ResolvedAdapter[],
    facts: ServerFacts,
    signal: AbortSignal,
  ): Promise<number | null> {
    if (adapters.length === 0) return null;
    const key = adapters.map(({ sha256, scale }) => `${sha256}*${scale}`).join("+");
    const known = this.#effects.get(key);
    if (known !== undefined) return orAbort(known, signal);
    if (this.#effects.size >= MAX_EFFECTS) this.#effects.clear();
    const measured = this.#measure(adapters, facts);
    this.#effects.set(key, measured);
    measured.catch(() => this.#effects.delete(key));
    return orAbort(measured, signal);
  }

  /** Unloads an adapter once no call uses it. @throws `server_lied` where the base has changed. */
  async unload(sha256: string, facts: ServerFacts): Promise<string> {
    const held = this.#held.get(sha256);
    if (held === undefined) return "";
    await held.ready;
    using _ = await held.users.drain(this.#drainMs);
    this.#held.delete(sha256);
    for (const key of this.#effects.keys()) if (key.includes(sha256)) this.#effects.delete(key);
    const left = await this.#support.unload(sha256, facts, this.#shared());
    await this.#checkBase(facts);
    return left;
  }

  #hold(adapter: ResolvedAdapter, facts: ServerFacts): Held {
    const known = this.#held.get(adapter.sha256);
    if (known !== undefined) return known;
    this.loads += 1;
    const ready = this.#load(adapter, facts);
    const held = { id: adapter.id, ready, users: new Gate(Infinity) };
    this.#held.set(adapter.sha256, held);
    ready.catch(() => {
      if (this.#held.get(adapter.sha256) === held) this.#held.delete(adapter.sha256);
    });
    return held;
  }

  async #load(adapter: ResolvedAdapter, facts: ServerFacts): Promise<void> {
    // Before the first adapter, so that its unloading can be compared with it.
    await this.#probeBase(facts);
    await this.#support.load(adapter, facts, this.#shared());
  }

  async #measure(adapters: readonly ResolvedAdapter[], facts: ServerFacts): Promise<number | null> {
    const base = await this.#probeBase(facts);
    const changed = await this.#support.probe(adapters, facts, this.#shared());
    if (base === undefined || changed === undefined) return null;
    const effect = largestChange(base, changed);
    if (effect < NOTHING) await this.#checkNothing(adapters);
    return effect;
  }

  /** An adapter of zeros changes nothing; any other that changes nothing was not applied. */
  async #checkNothing(adapters: readonly ResolvedAdapter[]): Promise<void> {
    const signal = this.#shared();
    for (const adapter of adapters) {
      if (adapter.scale === 0 || (await changesNothing(adapter, signal)) !== false) continue;
      const message = `the server says that adapter ${adapter.id} is loaded, and its answers do not change`;
      throw failure("server_lied", message, { details: { adapter: adapter.sha256 } });
    }
  }

  async #probeBase(facts: ServerFacts): Promise<Distribution | undefined> {
    const probed = (this.#base ??= this.#support.probe([], facts, this.#shared()));
    probed.catch(() => {
      if (this.#base === probed) this.#base = undefined;
    });
    return probed;
  }

  async #checkBase(facts: ServerFacts): Promise<void> {
    const before = await this.#base;
    const after = await this.#support.probe([], facts, this.#shared());
    if (before === undefined || after === undefined) return;
    const change = largestChange(before, after);
    if (change <= NOISE) return;
    const message = `after unloading, the base answers otherwise than before (by ${change})`;
    throw failure("server_lied", message, { details: { change } });
  }
}
