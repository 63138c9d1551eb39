import type { LoadCall } from "../engine.ts";
import type { Ready } from "./model.ts";
import { Shared } from "./shared.ts";

/**
 * The contexts by their set of adapters. Each is made once; beyond the limit the one that was idle
 * longest goes.
 */
export class ReadySets {
  loads = 0;
  readonly #most: number;
  readonly #sets = new Map<string, Shared<Ready>>();

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#sets.size;
  }

  keys(): Iterable<string> {
    return this.#sets.keys();
  }

  load(): { readonly active: number; readonly waiting: number } {
    let active = 0;
    let waiting = 0;
    for (const { now } of this.#sets.values()) {
      active += now?.slots.active ?? 0;
      waiting += now?.slots.waiting ?? 0;
    }
    return { active, waiting };
  }

  /** The set, entered: the caller leaves its slots when it is done. */
  async enter(
    key: string,
    call: LoadCall,
    open: (call: LoadCall) => Promise<Ready>,
  ): Promise<Ready> {
    for (;;) {
      const ready = await this.#made(key, call, open);
      if (ready.slots.enter()) return ready;
    }
  }

  async #made(
    key: string,
    call: LoadCall,
    open: (call: LoadCall) => Promise<Ready>,
  ): Promise<Ready> {
    const known = this.#sets.get(key);
    if (known !== undefined) return await known.get(call);
    const made = new Shared<Ready>(async (call) => {
      this.loads += 1;
      await this.#makeRoom(key);
      return await open(call);
    });
    this.#sets.set(key, made);
    try {
      return await made.get(call);
    } catch (error) {
      if (made.now === undefined && !made.isPending && this.#sets.get(key) === made) {
        this.#sets.delete(key);
      }
      throw error;
    }
  }

  /** Ends the chosen sets; a busy one is ended when its calls are over, or at once with `force`. */
  async drop(chosen: (key: string) => boolean, force = false): Promise<void> {
    const doomed = [...this.#sets].filter(([key]) => chosen(key));
    for (const [key, set] of doomed) {
      this.#sets.delete(key);
      await set.clear(async ({ slots, context }) => {
        if (!force) await slots.close();
        await context.dispose();
      });
    }
  }

  async #makeRoom(newKey: string): Promise<void> {
    const idle = [...this.#sets]
      .flatMap(([key, { now }]) =>
        now !== undefined && key !== newKey && now.slots.isIdle ? [{ key, now }] : [],
      )
      .sort((a, b) => a.now.lastUsed - b.now.lastUsed);
    const surplus = this.#sets.size - this.#most;
    const doomed = new Set(idle.slice(0, Math.max(0, surplus)).map(({ key }) => key));
    await this.drop((key) => doomed.has(key));
  }
}
