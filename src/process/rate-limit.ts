/** Lines, and bytes of them, that may pass in any one second. */
export interface Rate {
  readonly lines: number;
  readonly bytes: number;
}

/** Lets at most a rate through and counts the lines that it refused. */
export class RateLimit {
  readonly rate: Rate;
  readonly #now: () => number;
  #windowStart = 0;
  #lines = 0;
  #bytes = 0;
  #refused = 0;

  constructor(rate: Rate, now: () => number = () => performance.now()) {
    this.rate = rate;
    this.#now = now;
  }

  /** How many of `lines` lines, which are `bytes` long together, may pass. */
  take(lines: number, bytes: number): number {
    const now = this.#now();
    if (now - this.#windowStart >= 1_000) {
      this.#windowStart = now;
      this.#lines = 0;
      this.#bytes = 0;
    }
    const isFull = this.#bytes >= this.rate.bytes;
    const passed = isFull ? 0 : Math.min(lines, this.rate.lines - this.#lines);
    this.#lines += passed;
    this.#bytes += bytes;
    this.#refused += lines - passed;
    return passed;
  }

  /** How many were refused since the last call. */
  drainRefused(): number {
    const refused = this.#refused;
    this.#refused = 0;
    return refused;
  }
}
