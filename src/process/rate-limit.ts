/** Lets at most `perSecond` items through in any one second and counts what it refused. */
export class RateLimit {
  readonly #perSecond: number;
  readonly #now: () => number;
  #windowStart = 0;
  #inWindow = 0;
  #refused = 0;

  constructor(perSecond: number, now: () => number = () => performance.now()) {
    this.#perSecond = perSecond;
    this.#now = now;
  }

  take(): boolean {
    const now = this.#now();
    if (now - this.#windowStart >= 1_000) {
      this.#windowStart = now;
      this.#inWindow = 0;
    }
    if (this.#inWindow < this.#perSecond) {
      this.#inWindow += 1;
      return true;
    }
    this.#refused += 1;
    return false;
  }

  /** How many were refused since the last call. */
  drainRefused(): number {
    const refused = this.#refused;
    this.#refused = 0;
    return refused;
  }
}
