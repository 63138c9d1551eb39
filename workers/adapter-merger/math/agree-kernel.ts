import {
  add,
  addFloats,
  and,
  andNot,
  assemble,
  constant,
  F32,
  get,
  I32,
  isBelow,
  loadFloats,
  set,
  shiftRightSigned,
  splat,
  storeFloats,
  V128,
  whileLoop,
  xor,
  isNotEqualFloats,
  zeros,
  type Code,
} from "./wasm-assembler.ts";

const PAGE_BYTES = 65_536;
const LANES = 4;

type Kernel = (...parameters: readonly number[]) => void;

/**
 * Float arrays in one WebAssembly memory, and the inner loop of an election over them.
 *
 * One per thread: {@link begin} takes back everything that was handed out before.
 */
export class AgreeKernel {
  readonly #memory = new WebAssembly.Memory({ initial: 1, maximum: 65_536 });
  readonly #kernel: Kernel;
  #used = 0;

  constructor() {
    const module = new WebAssembly.Module(agreeModule());
    const instance = new WebAssembly.Instance(module, { env: { memory: this.#memory } });
    const kernel = instance.exports["agree"];
    if (typeof kernel !== "function") throw new TypeError("The kernel module has no agree");
    this.#kernel = (...parameters): void => {
      Reflect.apply(kernel, undefined, parameters);
    };
  }

  /** Makes room for `arrays` arrays of `length` floats. */
  begin(arrays: number, length: number): void {
    this.#used = 0;
    const bytes = arrays * aligned(length);
    const missing = Math.ceil((bytes - this.#memory.buffer.byteLength) / PAGE_BYTES);
    if (missing > 0) this.#memory.grow(missing);
  }

  /** Valid until the next {@link begin}; what it holds is not zeroed. */
  floats(length: number): Float32Array<ArrayBuffer> {
    const view = new Float32Array(this.#memory.buffer, this.#used, length);
    this.#used += aligned(length);
    return view;
  }

  /**
   * Where `ballots` is not zero and has the sign of `vote`: `out += values`, `divisor += share`.
   * All arrays are from {@link floats}. Returns how many entries were done; the rest, at most
   * three, is left to the caller.
   */
  addAgreeing(arrays: AgreeArrays, share: number): number {
    const { ballots, values, vote, out, divisor } = arrays;
    const done = values.length - (values.length % LANES);
    const offsets = [ballots, values, vote, out, divisor].map(({ byteOffset }) => byteOffset);
    this.#kernel(...offsets, done * 4, share);
    return done;
  }
}

export interface AgreeArrays {
  readonly ballots: Float32Array;
  readonly values: Float32Array;
  readonly vote: Float32Array;
  readonly out: Float32Array;
  readonly divisor: Float32Array;
}

function aligned(length: number): number {
  return Math.ceil(length / LANES) * LANES * 4;
}

/** Parameters: addresses of the five arrays, bytes to do, share. */
const [BALLOTS, VALUES, VOTE, OUT, DIVISOR, BYTES, SHARE] = [0, 1, 2, 3, 4, 5, 6] as const;
const [AT, BALLOT, MASK, SHARES] = [7, 8, 9, 10] as const;

function agreeModule(): Uint8Array<ArrayBuffer> {
  const load = (array: number): Code => [...get(array), ...get(AT), ...add, ...loadFloats(0)];
  const addMasked = (array: number, addend: Code): Code => [
    ...[get(array), get(AT), add].flat(),
    ...[load(array), addend, get(MASK), and, addFloats].flat(),
    ...storeFloats(0),
  ];
  const differs = [load(VOTE), get(BALLOT), xor, constant(31), shiftRightSigned].flat();
  const body = [
    ...[load(BALLOTS), set(BALLOT)].flat(),
    ...[get(BALLOT), zeros, isNotEqualFloats, differs, andNot, set(MASK)].flat(),
    ...addMasked(OUT, load(VALUES)),
    ...addMasked(DIVISOR, get(SHARES)),
    ...[get(AT), constant(LANES * 4), add, set(AT)].flat(),
  ];
  const loop = whileLoop([get(AT), get(BYTES), isBelow].flat(), body);
  return assemble({
    name: "agree",
    parameters: [I32, I32, I32, I32, I32, I32, F32],
    locals: [I32, V128, V128, V128],
    body: [...get(SHARE), ...splat, ...set(SHARES), ...loop],
  });
}
