import { roundTo, type FloatDtype } from "../safetensors/dtype.ts";
import type { Threshold } from "../math/select.ts";

/** One chunk of one input, with the same memory seen as floats and as bits. */
export interface Chunk {
  readonly values: Float32Array;
  readonly bits: Uint32Array;
}

/** Sums of magnitudes before and after pruning, as float64. */
export interface Mass {
  total: number;
  kept: number;
}

/** The selection of one input, walked through in order of the index. */
export interface Selection {
  readonly threshold: Threshold;
  tiesLeft: number;
}

export function selection(threshold: Threshold): Selection {
  return { threshold, tiesLeft: threshold.ties };
}

export function addMass({ values }: Chunk, mass: Mass): void {
  let total = 0;
  for (let i = 0; i < values.length; i += 1) total += Math.abs(values[i] ?? 0);
  mass.total += total;
  mass.kept += total;
}

/** Zeroes what does not belong to the selection. Free of branches that data decides. */
export function keepLargest({ values, bits }: Chunk, chosen: Selection, mass: Mass): void {
  const limit = chosen.threshold.bits;
  let total = 0;
  let kept = 0;
  for (let i = 0; i < bits.length; i += 1) {
    const word = bits[i] ?? 0;
    const magnitude = word & 0x7fffffff;
    total += Math.abs(values[i] ?? 0);
    let mask = (limit - magnitude) >> 31;
    if (magnitude === limit && chosen.tiesLeft > 0) {
      chosen.tiesLeft -= 1;
      mask = -1;
    }
    bits[i] = word & mask;
    kept += Math.abs(values[i] ?? 0);
  }
  mass.total += total;
  mass.kept += kept;
}

/** Zeroes what is outside `outer` or inside `inner`: outliers and small entries. */
export function keepBetween(
  { values, bits }: Chunk,
  outer: Selection,
  inner: Selection,
  mass: Mass,
): void {
  for (let i = 0; i < bits.length; i += 1) {
    const word = bits[i] ?? 0;
    const magnitude = word & 0x7fffffff;
    mass.total += Math.abs(values[i] ?? 0);
    const isKept = belongs(outer, magnitude) && !belongs(inner, magnitude);
    if (!isKept) bits[i] = 0;
    mass.kept += Math.abs(values[i] ?? 0);
  }
}

function belongs(chosen: Selection, magnitude: number): boolean {
  if (magnitude !== chosen.threshold.bits) return magnitude > chosen.threshold.bits;
  if (chosen.tiesLeft === 0) return false;
  chosen.tiesLeft -= 1;
  return true;
}

/** Rune's rule: everything that reaches the threshold survives; `survivors` counts per entry. */
export function keepReaching(
  { values, bits }: Chunk,
  { bits: limit }: Threshold,
  survivors: Uint16Array,
  mass: Mass,
): void {
  for (let i = 0; i < bits.length; i += 1) {
    mass.total += Math.abs(values[i] ?? 0);
    if (((bits[i] ?? 0) & 0x7fffffff) < limit) bits[i] = 0;
    else survivors[i] = (survivors[i] ?? 0) + 1;
    mass.kept += Math.abs(values[i] ?? 0);
  }
}

/** Keeps the entries whose random word is below `density` of the range. */
export function keepRandom(
  { values, bits }: Chunk,
  density: number,
  words: Uint32Array,
  mass: Mass,
): void {
  const limit = density * 2 ** 32;
  for (let i = 0; i < bits.length; i += 1) {
    mass.total += Math.abs(values[i] ?? 0);
    if ((words[i] ?? 0) >= limit) bits[i] = 0;
    mass.kept += Math.abs(values[i] ?? 0);
  }
}

export interface Della {
  readonly density: number;
  /** Half the width of the range of keep probabilities. */
  readonly epsilon: number;
  readonly rowLength: number;
  /** Divide survivors by their own probability, which keeps the expectation. */
  readonly isRescaled: boolean;
}

/**
 * Keeps each entry with a probability that rises with the rank of its magnitude in its row.
 *
 * Source: Deep, Bhardwaj, Poria, "DELLA-Merging" (2024), MagPrune.
 */
export function keepByRank(chunk: Chunk, della: Della, words: Uint32Array, mass: Mass): void {
  const { values, bits } = chunk;
  const { rowLength, density, epsilon } = della;
  const order = new Float64Array(rowLength);
  for (let row = 0; row < values.length; row += rowLength) {
    for (let i = 0; i < rowLength; i += 1) {
      order[i] = ((bits[row + i] ?? 0) & 0x7fffffff) * 2 ** 22 + i;
    }
    order.sort();
    for (let rank = 0; rank < rowLength; rank += 1) {
      const at = row + ((order[rank] ?? 0) % 2 ** 22);
      const share = rowLength === 1 ? 0.5 : rank / (rowLength - 1);
      const probability = density - epsilon + share * 2 * epsilon;
      const value = values[at] ?? 0;
      mass.total += Math.abs(value);
      const isKept = (words[at] ?? 0) < probability * 2 ** 32;
      if (isKept) mass.kept += Math.abs(value);
      const scale = della.isRescaled ? 1 / probability : 1;
      values[at] = isKept ? value * scale : 0;
    }
  }
}

/** Divides by the density as torch does: in float32, rounded to the dtype of the input. */
export function divide(values: Float32Array, divisor: number, dtype: FloatDtype): void {
  const single = Math.fround(divisor);
  for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) / single;
  roundTo(dtype, values);
}

export function multiply(values: Float32Array, factor: number, dtype: FloatDtype): void {
  const single = Math.fround(factor);
  for (let i = 0; i < values.length; i += 1) values[i] = (values[i] ?? 0) * single;
  roundTo(dtype, values);
}
