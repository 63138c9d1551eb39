/** Which magnitudes belong to the k largest: all above `bits`, and the first `ties` equal to it. */
export interface Threshold {
  /** Bit pattern of a non-negative float32; for those, order of bits is order of values. */
  readonly bits: number;
  /** How many entries of exactly that magnitude belong, in order of their index. */
  readonly ties: number;
}

/** Larger than every magnitude, a NaN's included: nothing belongs. */
const NOTHING: Threshold = { bits: 0x80000000, ties: 0 };
const UPPER_BINS = 1 << 15;
const LOWER_BINS = 1 << 16;

/**
 * Finds the k-th largest magnitude of a vector that is seen chunk by chunk, twice: first every
 * chunk through {@link countUpper}, then every chunk through {@link countLower}.
 *
 * An exact radix select on the bits of float32 magnitudes: no sorting, 384 KiB whatever the length.
 */
export class MagnitudeSelect {
  readonly #rank: number;
  readonly #upper = new Uint32Array(UPPER_BINS);
  readonly #lower = new Uint32Array(LOWER_BINS);
  #bin = -1;
  #above = 0;

  /** @param rank how many entries belong; 0 selects none */
  constructor(rank: number) {
    this.#rank = rank;
  }

  countUpper(bits: Uint32Array): void {
    const bins = this.#upper;
    for (let i = 0; i < bits.length; i += 1) {
      const bin = ((bits[i] ?? 0) & 0x7fffffff) >>> 16;
      bins[bin] = (bins[bin] ?? 0) + 1;
    }
  }

  countLower(bits: Uint32Array): void {
    if (this.#bin < 0) this.#findBin();
    const wanted = this.#bin;
    const bins = this.#lower;
    for (let i = 0; i < bits.length; i += 1) {
      const value = (bits[i] ?? 0) & 0x7fffffff;
      if (value >>> 16 === wanted) bins[value & 0xffff] = (bins[value & 0xffff] ?? 0) + 1;
    }
  }

  threshold(): Threshold {
    if (this.#rank <= 0) return NOTHING;
    let above = this.#above;
    for (let bin = LOWER_BINS - 1; bin >= 0; bin -= 1) {
      const count = this.#lower[bin] ?? 0;
      if (above + count >= this.#rank) {
        return { bits: this.#bin * LOWER_BINS + bin, ties: this.#rank - above };
      }
      above += count;
    }
    throw new RangeError("The rank is larger than the vector");
  }

  #findBin(): void {
    let above = 0;
    for (let bin = UPPER_BINS - 1; bin >= 0; bin -= 1) {
      const count = this.#upper[bin] ?? 0;
      if (above + count >= this.#rank) {
        this.#bin = bin;
        this.#above = above;
        return;
      }
      above += count;
    }
    throw new RangeError("The rank is larger than the vector");
  }
}
