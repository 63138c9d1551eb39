import { failure } from "./failure.ts";

interface Waiter {
  readonly admit: () => void;
}

/**
 * Lets a number of calls in at once, in order, and lets its owner wait until none is inside.
 *
 * While it is closed nobody new gets in; who waits goes on waiting.
 */
export class Gate {
  #slots: number;
  #inside = 0;
  #closed = 0;
  readonly #waiting: Waiter[] = [];
  readonly #idle = new Set<() => void>();

  constructor(slots: number) {
    this.#slots = slots;
  }

  get slots(): number {
    return this.#slots;
  }
  get active(): number {
    return this.#inside;
  }
  get waiting(): number {
    return this.#waiting.length;
  }

  resize(slots: number): void {
    this.#slots = slots;
    this.#admit();
  }

  /** Takes a place; dispose of it to leave. @throws the reason of an aborted signal. */
  async enter(signal: AbortSignal): Promise<Disposable> {
    signal.throwIfAborted();
    if (this.#closed === 0 && this.#inside < this.#slots && this.#waiting.length === 0) {
      this.#inside += 1;
      return this.#place();
    }
    const admitted = Promise.withResolvers<undefined>();
    const waiter: Waiter = {
      admit: () => {
        this.#inside += 1;
        admitted.resolve(undefined);
      },
    };
    const leave = (): void => {
      const at = this.#waiting.indexOf(waiter);
      if (at === -1) return;
      this.#waiting.splice(at, 1);
      admitted.reject(signal.reason);
    };
    this.#waiting.push(waiter);
    signal.addEventListener("abort", leave, { once: true });
    try {
      await admitted.promise;
      return this.#place();
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  /**
   * Closes the gate and waits until everybody has left; dispose of the result to open it.
   *
   * @throws {CjmError} `server_busy` after `ms`; the gate is open again then.
   */
  async drain(ms: number): Promise<Disposable> {
    this.#closed += 1;
    const closed: Disposable = {
      [Symbol.dispose]: () => {
        this.#closed -= 1;
        this.#admit();
      },
    };
    if (this.#inside === 0) return closed;
    const idle = Promise.withResolvers<undefined>();
    const emptied = (): void => {
      idle.resolve(undefined);
    };
    this.#idle.add(emptied);
    const timer = setTimeout(() => {
      const message = `${this.#inside} calls still ran after ${ms / 1000} s`;
      idle.reject(failure("server_busy", message));
    }, ms);
    try {
      await idle.promise;
      return closed;
    } catch (error) {
      closed[Symbol.dispose]();
      throw error;
    } finally {
      clearTimeout(timer);
      this.#idle.delete(emptied);
    }
  }

  #place(): Disposable {
    let isInside = true;
    return {
      [Symbol.dispose]: () => {
        if (!isInside) return;
        isInside = false;
        this.#inside -= 1;
        this.#admit();
        if (this.#inside > 0) return;
        for (const emptied of this.#idle) emptied();
      },
    };
  }

  #admit(): void {
    while (this.#closed === 0 && this.#inside < this.#slots) {
      const next = this.#waiting.shift();
      if (next === undefined) return;
      next.admit();
    }
  }
}
