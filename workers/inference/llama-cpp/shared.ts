import type { LoadCall } from "../engine.ts";

type Progress = LoadCall["progress"];

/**
 * One thing that many callers need and that is made once, however many ask at the same time.
 *
 * The making goes on while at least one caller waits for it, and is aborted when the last one has
 * left. What fails is made again for the next caller.
 */
export class Shared<Value> {
  now: Value | undefined;
  readonly #make: (call: LoadCall) => Promise<Value>;
  #pending: Pending<Value> | undefined;

  constructor(make: (call: LoadCall) => Promise<Value>) {
    this.#make = make;
  }

  get isPending(): boolean {
    return this.#pending !== undefined;
  }

  async get({ signal, progress }: LoadCall): Promise<Value> {
    if (this.now !== undefined) return this.now;
    signal.throwIfAborted();
    this.#pending ??= this.#start();
    return await this.#pending.join(signal, progress);
  }

  /** Ends what is there; what is being made is waited for and ended too. */
  async clear(end: (value: Value) => Promise<void>): Promise<void> {
    await this.#pending?.settled;
    const value = this.now;
    this.now = undefined;
    if (value !== undefined) await end(value);
  }

  #start(): Pending<Value> {
    const pending = new Pending<Value>(async (call) => {
      try {
        this.now = await this.#make(call);
        return this.now;
      } finally {
        if (this.#pending === pending) this.#pending = undefined;
      }
    });
    return pending;
  }
}

class Pending<Value> {
  readonly settled: Promise<void>;
  readonly #made: Promise<Value>;
  readonly #abort = new AbortController();
  readonly #listeners = new Set<Progress>();
  #waiting = 0;

  constructor(make: (call: LoadCall) => Promise<Value>) {
    const progress: Progress = (fraction, message) => {
      for (const listener of this.#listeners) listener(fraction, message);
    };
    // Begins after the constructor, so that whoever makes one holds it already.
    this.#made = Promise.resolve().then(() => make({ signal: this.#abort.signal, progress }));
    this.settled = this.#made.then(
      () => undefined,
      () => undefined,
    );
  }

  async join(signal: AbortSignal, progress: Progress): Promise<Value> {
    this.#waiting += 1;
    this.#listeners.add(progress);
    const left = Promise.withResolvers<never>();
    // oxlint-disable-next-line typescript/prefer-promise-reject-errors -- the reason is the caller's own
    const leave = (): void => left.reject(signal.reason);
    signal.addEventListener("abort", leave, { once: true });
    try {
      return await Promise.race([this.#made, left.promise]);
    } finally {
      signal.removeEventListener("abort", leave);
      this.#listeners.delete(progress);
      this.#waiting -= 1;
      if (this.#waiting === 0) this.#abort.abort(signal.reason);
    }
  }
}
