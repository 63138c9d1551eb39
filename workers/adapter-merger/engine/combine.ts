import { roundNumber, roundTo, type FloatDtype } from "../safetensors/dtype.ts";
import type { AgreeArrays, AgreeKernel } from "../math/agree-kernel.ts";
import type { Chunk } from "./prune.ts";
import type { Rules } from "./rules.ts";

/** Work arrays of one chunk; made once per merge and reused. */
export interface CombineScratch {
  /** The owner of the arrays; the chunks and the result must be from it too. */
  readonly kernel: AgreeKernel;
  readonly vote: Float32Array;
  readonly divisor: Float32Array;
  readonly weighted: Float32Array;
  /** Bit 0: some input is positive there; bit 1: some input is negative. */
  readonly signs: Uint8Array;
  readonly survivors: Uint16Array;
}

/** How many arrays of a kernel {@link combineScratch} takes. */
export const SCRATCH_ARRAYS = 3;

export function combineScratch(kernel: AgreeKernel, length: number): CombineScratch {
  return {
    kernel,
    vote: kernel.floats(length),
    divisor: kernel.floats(length),
    weighted: kernel.floats(length),
    signs: new Uint8Array(length),
    survivors: new Uint16Array(length),
  };
}

export interface Combine {
  readonly rules: Rules;
  readonly weights: readonly number[];
  readonly lambda: number;
  readonly dtype: FloatDtype;
}

/** Entries where at least one input is not zero, and of those the ones where signs differ. */
export interface Signs {
  present: number;
  conflicting: number;
}

/** Merges pruned chunks into `out` by the rules; every step rounds to float32. */
export function combineChunk(
  chunks: readonly Chunk[],
  combine: Combine,
  scratch: CombineScratch,
  out: Float32Array,
): Signs {
  const signs = countSigns(chunks, scratch.signs);
  out.fill(0);
  const { rules, weights } = combine;
  if (rules.vote === "none") {
    for (const [i, chunk] of chunks.entries()) {
      addWeighted(weighted(chunk, weights[i] ?? 0, combine, scratch), out);
    }
    divideBy(out, constantDivisor(combine, chunks.length));
  } else {
    elect(chunks, combine, scratch);
    sumAgreeing(chunks, combine, scratch, out);
  }
  finish(out, combine);
  return signs;
}

function countSigns(chunks: readonly Chunk[], signs: Uint8Array): Signs {
  signs.fill(0);
  for (const { bits } of chunks) {
    for (let i = 0; i < bits.length; i += 1) {
      const word = bits[i] ?? 0;
      const isPresent = ((word & 0x7fffffff) + 0x7fffffff) >>> 31;
      signs[i] = (signs[i] ?? 0) | (isPresent << (word >>> 31));
    }
  }
  let present = 0;
  let conflicting = 0;
  for (let i = 0; i < signs.length; i += 1) {
    const flags = signs[i] ?? 0;
    present += (flags & 1) | (flags >>> 1);
    conflicting += flags & (flags >>> 1);
  }
  return { present, conflicting };
}

/** `weight * chunk`, rounded as the rules say; the chunk itself is left alone. */
function weighted(
  { values }: Chunk,
  weight: number,
  { rules, dtype }: Combine,
  { weighted: out }: CombineScratch,
): Float32Array {
  const factor = rules.isRoundedPerStep ? roundNumber(dtype, weight) : Math.fround(weight);
  if (factor === 1) return values;
  for (let i = 0; i < values.length; i += 1) out[i] = (values[i] ?? 0) * factor;
  if (rules.isRoundedPerStep) roundTo(dtype, out);
  return out;
}

function addWeighted(values: Float32Array, out: Float32Array): void {
  for (let i = 0; i < values.length; i += 1) out[i] = (out[i] ?? 0) + (values[i] ?? 0);
}

function constantDivisor({ rules, weights }: Combine, inputs: number): number {
  if (rules.divisor === "inputs") return inputs;
  if (rules.divisor !== "total_weight") return 1;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return Math.abs(total) < 1e-8 ? 1 : total;
}

function divideBy(out: Float32Array, divisor: number): void {
  if (divisor === 1) return;
  const single = Math.fround(divisor);
  for (let i = 0; i < out.length; i += 1) out[i] = (out[i] ?? 0) / single;
}

function elect(chunks: readonly Chunk[], combine: Combine, scratch: CombineScratch): void {
  const { vote } = scratch;
  vote.fill(0);
  for (const [i, chunk] of chunks.entries()) {
    const weight = combine.weights[i] ?? 0;
    if (combine.rules.vote === "frequency") {
      const isFlipped = combine.rules.isVoteWeighted && weight < 0;
      const size = combine.rules.isVoteWeighted && weight === 0 ? 0 : 1;
      addSigns(chunk, isFlipped ? -size : size, vote);
    } else if (combine.rules.isVoteWeighted) {
      addWeighted(weighted(chunk, weight, combine, scratch), vote);
    } else {
      addWeighted(chunk.values, vote);
    }
  }
  // A vote of zero elects plus, also where the sum came out as minus zero.
  for (let i = 0; i < vote.length; i += 1) vote[i] = (vote[i] ?? 0) + 0;
}

function addSigns({ bits }: Chunk, size: number, vote: Float32Array): void {
  for (let i = 0; i < bits.length; i += 1) {
    const word = bits[i] ?? 0;
    const isPresent = ((word & 0x7fffffff) + 0x7fffffff) >>> 31;
    vote[i] = (vote[i] ?? 0) + isPresent * (1 - 2 * (word >>> 31)) * size;
  }
}

function sumAgreeing(
  chunks: readonly Chunk[],
  combine: Combine,
  scratch: CombineScratch,
  out: Float32Array,
): void {
  const { rules, weights } = combine;
  const { vote, divisor, survivors } = scratch;
  divisor.fill(0);
  for (const [i, chunk] of chunks.entries()) {
    const weight = weights[i] ?? 0;
    const values = weighted(chunk, weight, combine, scratch);
    const ballots = rules.isVoteWeighted ? values : chunk.values;
    const share = rules.divisor === "count" ? 1 : Math.fround(weight);
    if (rules.onTie === "mean") addAgreeingOrTied(ballots, vote, out, divisor);
    else addAgreeing(scratch.kernel, { ballots, values, vote, out, divisor }, share);
  }
  if (rules.onTie === "mean") divideTied(vote, survivors, divisor);
  if (rules.divisor !== "none") divideByEach(out, divisor, rules.divisor === "count");
}

/** Sums what agrees with the elected sign: by the kernel, and the few entries it leaves over here. */
function addAgreeing(kernel: AgreeKernel, arrays: AgreeArrays, share: number): void {
  const { ballots, values, vote, out, divisor } = arrays;
  for (let i = kernel.addAgreeing(arrays, share); i < values.length; i += 1) {
    const ballot = ballots[i] ?? 0;
    const agrees = (vote[i] ?? 0) >= 0 ? ballot > 0 : ballot < 0;
    if (!agrees) continue;
    out[i] = (out[i] ?? 0) + (values[i] ?? 0);
    divisor[i] = (divisor[i] ?? 0) + share;
  }
}

/** Rune takes every survivor into the mean where the vote is a tie. */
function addAgreeingOrTied(
  values: Float32Array,
  vote: Float32Array,
  out: Float32Array,
  divisor: Float32Array,
): void {
  for (let i = 0; i < values.length; i += 1) {
    const value = values[i] ?? 0;
    const elected = Math.sign(vote[i] ?? 0);
    if (elected !== 0 && Math.sign(value) !== elected) continue;
    out[i] = (out[i] ?? 0) + value;
    divisor[i] = (divisor[i] ?? 0) + 1;
  }
}

function divideTied(vote: Float32Array, survivors: Uint16Array, divisor: Float32Array): void {
  for (let i = 0; i < divisor.length; i += 1) if (vote[i] === 0) divisor[i] = survivors[i] ?? 0;
}

function divideByEach(out: Float32Array, divisor: Float32Array, isCount: boolean): void {
  for (let i = 0; i < out.length; i += 1) {
    const by = divisor[i] ?? 0;
    const safe = isCount ? Math.max(1, by) : byOrOne(by);
    out[i] = (out[i] ?? 0) / safe;
  }
}

function byOrOne(divisor: number): number {
  return Math.abs(divisor) < 1e-8 ? 1 : divisor;
}

function finish(out: Float32Array, { rules, lambda, dtype }: Combine): void {
  if (rules.isRoundedPerStep) roundTo(dtype, out);
  if (lambda === 1) return;
  const factor = Math.fround(lambda);
  for (let i = 0; i < out.length; i += 1) out[i] = (out[i] ?? 0) * factor;
  if (rules.isRoundedPerStep) roundTo(dtype, out);
}
