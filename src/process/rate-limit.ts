/** Lines, and bytes of them, that may pass in any one window of time. */
export interface Rate {
  readonly lines: number;
  readonly bytes: number;
  /** @default 1000 */
  readonly windowMs?: number;
}

/** Lets at most a rate through and counts the lines that it refused. */
export class RateLimit {
  readonly rate: Rate;
  readonly #windowMs: number;
  readonly #now: () => number;
  #windowStart = 0;
  #lines = 0;
  #bytes = 0;
  #refused = 0;

  constructor(rate: Rate, now: () => number = () => performance.now()) {
    this.rate = rate;
    this.#windowMs = rate.windowMs ?? 1_000;
    this.#now = now;
  }

  /** How many lines may pass now; taken by {@link use}. */
  left(): number {
    const now = this.#now();
    if (now - this.#windowStart >= this.#windowMs) {
      this.#windowStart = now;
      this.#lines = 0;
      this.#bytes = 0;
    }
    return this.#bytes >= this.rate.bytes ? 0 : this.rate.lines - this.#lines;
  }

  /** Counts lines that have passed, with their bytes, and lines that were refused. */
  use(passed: number, bytes: number, refused: number): void {
    this.#lines += passed;
    this.#bytes += bytes;
    this.#refused += refused;
  }

  /** How many of `lines` lines, which are `bytes` long together, pass. */
  take(lines: number, bytes: number): number {
    const passed = Math.min(lines, this.left());
    this.use(passed, bytes, lines - passed);
    return passed;
  }

  /** How many were refused since the last call. */
  drainRefused(): number {
    const refused = this.#refused;
    this.#refused = 0;
    return refused;
  }
}
