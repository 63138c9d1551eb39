import { randomWords, type StreamKey } from "../math/random.ts";
import { MagnitudeSelect, type Threshold } from "../math/select.ts";
import { MergeFault } from "../fault.ts";
import type { FloatDtype } from "../safetensors/dtype.ts";
import { AgreeKernel } from "../math/agree-kernel.ts";
import { combineChunk, combineScratch, SCRATCH_ARRAYS, type CombineScratch } from "./combine.ts";
import {
  addMass,
  divide,
  keepBetween,
  keepByRank,
  keepLargest,
  keepRandom,
  keepReaching,
  multiply,
  selection,
  type Chunk,
  type Mass,
  type Selection,
} from "./prune.ts";
import type { Rules } from "./rules.ts";

/** Equally long vectors that can be read piece by piece, any number of times. */
export interface VectorSet {
  readonly inputs: number;
  readonly length: number;
  /** Entries per row; DELLA ranks within a row. */
  readonly rowLength: number;
  /** How many entries to hold at once; a multiple of `rowLength` where rows matter. */
  readonly chunkLength: number;
  /** Copies entries from `start` of one input into `out`. */
  load(input: number, start: number, out: Float32Array): void;
}

/** Where random words come from; a replay of recorded masks implements it too. */
export interface Draws {
  fill(input: number, start: number, out: Uint32Array): void;
}

/** One counter-based stream per input. */
export function counterDraws(keys: readonly StreamKey[]): Draws {
  return {
    fill(input, start, out): void {
      const key = keys[input];
      if (key === undefined) throw new RangeError(`No stream for input ${input}`);
      randomWords(key, start, out);
    },
  };
}

export interface VectorMerge {
  readonly rules: Rules;
  readonly weights: readonly number[];
  /** Share of entries that survive, 0..1, per input. */
  readonly densities: readonly number[];
  readonly lambda: number;
  /** Breadcrumbs: share of the largest entries that is dropped as outliers. */
  readonly gamma: number;
  /** DELLA: half the width of the range of keep probabilities. */
  readonly epsilon: number;
  /** The dtype the inputs were stored in; rules that round per step round to it. */
  readonly dtype: FloatDtype;
  readonly draws: Draws;
  /** Called for an input whose values are not all finite; throws to refuse. */
  onNonFinite(input: number): void;
}

export interface VectorStats {
  readonly mass: readonly Mass[];
  present: number;
  conflicting: number;
  /** Sum of squares of the result. */
  energy: number;
}

type Sink = (start: number, values: Float32Array) => void;

/** What is known about one input before its entries are kept or dropped. */
interface Prepared {
  readonly outer?: Selection;
  readonly inner?: Selection;
  readonly threshold?: Threshold;
  l1: number;
}

/**
 * Merges vectors chunk by chunk into `sink`, in order of the index.
 *
 * Memory is a few chunks, whatever the length; pruning by magnitude reads every input three times
 * and is exact, with ties broken by the lower index.
 */
export function mergeVectors(set: VectorSet, merge: VectorMerge, sink: Sink): VectorStats {
  const pass = new Pass(set, merge);
  const stats: VectorStats = {
    mass: merge.weights.map(() => ({ total: 0, kept: 0 })),
    present: 0,
    conflicting: 0,
    energy: 0,
  };
  pass.run(stats, sink);
  return stats;
}

/** One per thread: merges do not overlap, and a WebAssembly memory is dear to make. */
let kernel: AgreeKernel | undefined;

class Pass {
  readonly #set: VectorSet;
  readonly #merge: VectorMerge;
  readonly #values: readonly Float32Array[];
  readonly #words: Uint32Array;
  readonly #out: Float32Array;
  readonly #scratch: CombineScratch;

  constructor(set: VectorSet, merge: VectorMerge) {
    const length = Math.min(set.chunkLength, Math.max(1, set.length));
    kernel ??= new AgreeKernel();
    const owner = kernel;
    owner.begin(set.inputs + 1 + SCRATCH_ARRAYS, length);
    this.#set = set;
    this.#merge = merge;
    this.#values = Array.from({ length: set.inputs }, () => owner.floats(length));
    this.#words = new Uint32Array(length);
    this.#out = owner.floats(length);
    this.#scratch = combineScratch(owner, length);
  }

  run(stats: VectorStats, sink: Sink): void {
    const prepared = this.#prepare();
    for (let start = 0; start < this.#set.length; start += this.#out.length) {
      const count = Math.min(this.#out.length, this.#set.length - start);
      const chunks = this.#values.map((_, input) => this.#load(input, start, count));
      const scratch = slice(this.#scratch, count);
      scratch.survivors.fill(0);
      const before = stats.mass.map(({ total }) => total);
      for (const [input, chunk] of chunks.entries()) {
        const known = prepared[input] ?? { l1: 1 };
        const mass = stats.mass[input] ?? { total: 0, kept: 0 };
        this.#prune(chunk, { input, start, known, mass, survivors: scratch.survivors });
      }
      const out = this.#out.subarray(0, count);
      const { rules, weights, lambda, dtype } = this.#merge;
      const signs = combineChunk(chunks, { rules, weights, lambda, dtype }, scratch, out);
      stats.present += signs.present;
      stats.conflicting += signs.conflicting;
      this.#handleNonFinite(stats, before, chunks, out);
      stats.energy += sumOfSquares(out);
      sink(start, out);
    }
  }

  /** A sum of magnitudes is finite exactly when every entry is. */
  #handleNonFinite(
    stats: VectorStats,
    before: readonly number[],
    chunks: readonly Chunk[],
    out: Float32Array,
  ): void {
    const found = stats.mass.flatMap(({ total }, input) => (Number.isFinite(total) ? [] : [input]));
    if (found.length === 0) return;
    for (const input of found) {
      this.#merge.onNonFinite(input);
      const mass = stats.mass[input];
      if (mass !== undefined) mass.total = before[input] ?? 0;
      if (mass !== undefined && !Number.isFinite(mass.kept)) mass.kept = mass.total;
    }
    for (let i = 0; i < out.length; i += 1) {
      const sum = chunks.reduce((total, { values }) => total + (values[i] ?? 0), 0);
      if (!Number.isFinite(sum)) out[i] = sum;
    }
  }

  #load(input: number, start: number, count: number): Chunk {
    const values = (this.#values[input] ?? this.#out).subarray(0, count);
    this.#set.load(input, start, values);
    return { values, bits: new Uint32Array(values.buffer, values.byteOffset, count) };
  }

  #prepare(): readonly Prepared[] {
    const { rules } = this.#merge;
    const selects = this.#merge.densities.map((density) =>
      selectsFor(this.#merge, density, this.#set),
    );
    this.#sweep((input, { bits }) => selects[input]?.forEach((select) => select.countUpper(bits)));
    this.#sweep((input, { bits }) => selects[input]?.forEach((select) => select.countLower(bits)));
    const prepared = selects.map((found) => prepare(found?.map((select) => select.threshold())));
    if (rules.rescale === "l1") this.#measureL1(prepared);
    return prepared;
  }

  /** Shows every chunk of every input that has something to find. */
  #sweep(see: (input: number, chunk: Chunk) => void): void {
    const { rules, densities } = this.#merge;
    if (rules.prune !== "magnitude" && rules.prune !== "breadcrumbs") return;
    for (const [input, density] of densities.entries()) {
      if (density >= 1) continue;
      for (let start = 0; start < this.#set.length; start += this.#out.length) {
        const count = Math.min(this.#out.length, this.#set.length - start);
        see(input, this.#load(input, start, count));
      }
    }
  }

  /** Finds by how much survivors must grow so that the sum of magnitudes stays. */
  #measureL1(prepared: readonly Prepared[]): void {
    for (const [input, known] of prepared.entries()) {
      const mass = { total: 0, kept: 0 };
      for (let start = 0; start < this.#set.length; start += this.#out.length) {
        const count = Math.min(this.#out.length, this.#set.length - start);
        const chunk = this.#load(input, start, count);
        const survivors = this.#scratch.survivors.subarray(0, count);
        this.#prune(chunk, { input, start, known, mass, survivors });
      }
      rewind(known);
      known.l1 = mass.total < 1e-7 || mass.kept < 1e-7 ? 1 : mass.total / mass.kept;
    }
  }

  #prune(chunk: Chunk, at: PruneAt): void {
    const { rules, densities } = this.#merge;
    const density = densities[at.input] ?? 1;
    if (rules.prune === "none" || isWhole(rules, density)) {
      addMass(chunk, at.mass);
      if (rules.keep === "at_least_one") this.#countSurvivors(at.survivors);
      return;
    }
    if (rules.prune === "magnitude") keepByMagnitude(chunk, rules, at);
    else if (rules.prune === "breadcrumbs") keepBreadcrumbs(chunk, at);
    else this.#keepByChance(chunk, density, at);
    this.#rescale(chunk, density, at.known);
  }

  #countSurvivors(survivors: Uint16Array): void {
    for (let i = 0; i < survivors.length; i += 1) survivors[i] = (survivors[i] ?? 0) + 1;
  }

  #keepByChance(chunk: Chunk, density: number, { input, start, mass }: PruneAt): void {
    const words = this.#words.subarray(0, chunk.values.length);
    this.#merge.draws.fill(input, start, words);
    if (this.#merge.rules.prune === "random") {
      keepRandom(chunk, density, words, mass);
      return;
    }
    const isRescaled = this.#merge.rules.rescale === "probability";
    const { rowLength } = this.#set;
    keepByRank(
      chunk,
      { density, epsilon: this.#merge.epsilon, rowLength, isRescaled },
      words,
      mass,
    );
  }

  #rescale({ values }: Chunk, density: number, { l1 }: Prepared): void {
    const { rules, dtype } = this.#merge;
    if (rules.rescale === "density" && density > 0) divide(values, density, dtype);
    if (rules.rescale === "l1" && l1 !== 1) multiply(values, l1, dtype);
  }
}

interface PruneAt {
  readonly input: number;
  readonly start: number;
  readonly known: Prepared;
  readonly mass: Mass;
  readonly survivors: Uint16Array;
}

/** A measuring walk uses the ties up; the merging walk starts over. */
function rewind({ outer, inner }: Prepared): void {
  if (outer !== undefined) outer.tiesLeft = outer.threshold.ties;
  if (inner !== undefined) inner.tiesLeft = inner.threshold.ties;
}

function isWhole(rules: Rules, density: number): boolean {
  return density >= 1 && rules.keep === "exact";
}

function keepByMagnitude(chunk: Chunk, rules: Rules, { known, mass, survivors }: PruneAt): void {
  if (known.outer === undefined || known.threshold === undefined) {
    addMass(chunk, mass);
    for (let i = 0; i < survivors.length; i += 1) survivors[i] = (survivors[i] ?? 0) + 1;
  } else if (rules.keep === "at_least_one") {
    keepReaching(chunk, known.threshold, survivors, mass);
  } else {
    keepLargest(chunk, known.outer, mass);
  }
}

function keepBreadcrumbs(chunk: Chunk, { known, mass }: PruneAt): void {
  if (known.outer === undefined || known.inner === undefined) addMass(chunk, mass);
  else keepBetween(chunk, known.outer, known.inner, mass);
}

function prepare(thresholds: readonly Threshold[] | undefined): Prepared {
  const [outer, inner] = thresholds ?? [];
  return {
    ...(outer === undefined ? {} : { outer: selection(outer), threshold: outer }),
    ...(inner === undefined ? {} : { inner: selection(inner) }),
    l1: 1,
  };
}

/** How many entries must be told apart: the kept ones, and for breadcrumbs the outliers. */
function selectsFor(
  { rules, gamma }: VectorMerge,
  density: number,
  { length }: VectorSet,
): readonly MagnitudeSelect[] | undefined {
  if (density >= 1) return undefined;
  const target = Math.trunc(density * length);
  if (rules.prune === "magnitude") {
    const rank = rules.keep === "at_least_one" ? Math.max(1, target) : target;
    return [new MagnitudeSelect(Math.min(rank, length))];
  }
  if (rules.prune !== "breadcrumbs") return undefined;
  const outliers = Math.min(Math.trunc(gamma * length), length - target);
  return [new MagnitudeSelect(target + outliers), new MagnitudeSelect(outliers)];
}

function slice(scratch: CombineScratch, count: number): CombineScratch {
  return {
    kernel: scratch.kernel,
    vote: scratch.vote.subarray(0, count),
    divisor: scratch.divisor.subarray(0, count),
    weighted: scratch.weighted.subarray(0, count),
    signs: scratch.signs.subarray(0, count),
    survivors: scratch.survivors.subarray(0, count),
  };
}

function sumOfSquares(values: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) sum += (values[i] ?? 0) ** 2;
  return sum;
}

/** Vectors that are already in memory. */
export function vectorsInMemory(
  tensors: readonly Float32Array[],
  rowLength: number,
  targetChunk = 16_384,
): VectorSet {
  const length = tensors[0]?.length ?? 0;
  if (tensors.some((tensor) => tensor.length !== length)) {
    throw new MergeFault("CAPABILITY_INPUT", "shape", "The vectors differ in length");
  }
  const rows = Math.max(1, Math.floor(targetChunk / Math.max(1, rowLength)));
  return {
    inputs: tensors.length,
    length,
    rowLength,
    chunkLength: Math.max(1, rows * rowLength),
    load(input, start, out): void {
      out.set((tensors[input] ?? out).subarray(start, start + out.length));
    },
  };
}
