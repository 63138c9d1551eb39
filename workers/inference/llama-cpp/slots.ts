import type { LlamaContext, LlamaContextSequence, Token } from "node-llama-cpp";

interface Waiter {
  readonly tokens: readonly Token[];
  readonly give: (sequence: LlamaContextSequence) => void;
}

/**
 * The sequences of one context. A call gets the free one that has evaluated the longest beginning of
 * its prompt already; where none is free it waits its turn.
 */
export class Slots {
  readonly size: number;
  readonly #free: LlamaContextSequence[];
  readonly #waiters: Waiter[] = [];
  #left: PromiseWithResolvers<void> | undefined;
  #users = 0;
  #isClosed = false;

  constructor(context: LlamaContext, size: number) {
    this.size = size;
    this.#free = Array.from({ length: size }, () => context.getSequence());
  }

  get active(): number {
    return this.size - this.#free.length;
  }

  get isIdle(): boolean {
    return this.#users === 0;
  }

  get waiting(): number {
    return this.#waiters.length;
  }

  /** @throws the signal's reason when it is aborted before a slot is free */
  async acquire(tokens: readonly Token[], signal: AbortSignal): Promise<LlamaContextSequence> {
    signal.throwIfAborted();
    const free = this.#takeBest(tokens);
    if (free !== undefined) return free;
    return await new Promise((resolve, reject) => {
      const waiter: Waiter = {
        tokens,
        give: (sequence) => {
          signal.removeEventListener("abort", leave);
          resolve(sequence);
        },
      };
      const leave = (): void => {
        this.#waiters.splice(this.#waiters.indexOf(waiter), 1);
        // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- the reason is the caller's own
        reject(signal.reason);
      };
      signal.addEventListener("abort", leave, { once: true });
      this.#waiters.push(waiter);
    });
  }

  release(sequence: LlamaContextSequence): void {
    const next = this.#waiters.shift();
    if (next !== undefined) {
      next.give(sequence);
      return;
    }
    this.#free.push(sequence);
  }

  /** Keeps the context alive until `leave`; false where it is gone already. */
  enter(): boolean {
    if (this.#isClosed) return false;
    this.#users += 1;
    return true;
  }

  leave(): void {
    this.#users -= 1;
    if (this.#users === 0) this.#left?.resolve();
  }

  /** Resolves when no user is left; from then on none can enter. */
  async close(): Promise<void> {
    while (this.#users > 0) {
      this.#left = Promise.withResolvers();
      await this.#left.promise;
    }
    this.#isClosed = true;
  }

  #takeBest(tokens: readonly Token[]): LlamaContextSequence | undefined {
    let best: { index: number; common: number; lost: number } | undefined;
    for (const [index, sequence] of this.#free.entries()) {
      const common = commonLength(sequence, tokens);
      const lost = sequence.nextTokenIndex - common;
      const isBetter =
        best === undefined || common > best.common || (common === best.common && lost < best.lost);
      if (isBetter) best = { index, common, lost };
    }
    return best === undefined ? undefined : this.#free.splice(best.index, 1)[0];
  }
}

function commonLength(sequence: LlamaContextSequence, tokens: readonly Token[]): number {
  if (sequence.nextTokenIndex === 0) return 0;
  const held = sequence.contextTokens;
  const most = Math.min(held.length, tokens.length);
  let length = 0;
  while (length < most && held[length] === tokens[length]) length += 1;
  return length;
}
