/** Smaller sums are the driver's own ups and downs. */
const NOISE_BYTES = 32 * 1024 * 1024;

/**
 * Gives changes of memory that nobody is known to hold to the one instance that can have made them.
 *
 * The last resort, for devices that do not say who holds what: while exactly one instance loads or
 * runs a job on a GPU, its residual memory grows and shrinks on that instance's account. With two at
 * work nothing is given to either. One ledger is for one GPU.
 */
export class DeltaLedger {
  readonly #held = new Map<string, number>();
  #lastBytes: number | undefined;
  /** Left behind by instances that are gone and not yet seen free. */
  #leavingBytes = 0;

  /** `active`: instances that hold a lease, i.e. are loading or running a job. */
  observe(residualBytes: number, active: readonly string[]): void {
    let change = residualBytes - (this.#lastBytes ?? residualBytes);
    this.#lastBytes = residualBytes;
    if (change < 0) {
      const leaving = Math.min(this.#leavingBytes, -change);
      this.#leavingBytes -= leaving;
      change += leaving;
    }
    const [only, ...others] = active;
    if (only === undefined || others.length > 0) return;
    this.#held.set(only, Math.max(0, (this.#held.get(only) ?? 0) + change));
  }

  /** Bytes on the instance's account; 0 below the noise floor. */
  heldBy(instanceId: string): number {
    const bytes = this.#held.get(instanceId) ?? 0;
    return bytes < NOISE_BYTES ? 0 : bytes;
  }

  forget(instanceId: string): void {
    this.#leavingBytes += this.#held.get(instanceId) ?? 0;
    this.#held.delete(instanceId);
  }
}
