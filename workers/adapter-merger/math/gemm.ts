import { MergeFault } from "../fault.ts";
import {
  add,
  addFloats,
  advance,
  assemble,
  constant,
  get,
  I32,
  isBelow,
  loadFloats,
  loadSplat,
  multiply,
  multiplyFloats,
  set,
  storeFloats,
  V128,
  whileLoop,
  type Code,
} from "./wasm-assembler.ts";

const ROWS = 4;
const COLUMNS = 8;
/** Long enough to amortise loading the accumulators, short enough that a panel of B stays in L1. */
const DEPTH = 256;
const PAGE_BYTES = 65_536;
/** What one WebAssembly memory can address. */
export const ARENA_MAX_BYTES = 65_535 * PAGE_BYTES;

type Kernel = (...parameters: readonly number[]) => void;

/** A row-major matrix inside an {@link Arena}. */
export interface Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly byteOffset: number;
  /** A view that is valid until the arena grows. */
  values(): Float32Array<ArrayBuffer>;
}

/**
 * Float32 matrices in one WebAssembly memory, and their product.
 *
 * Allocation only moves forward; {@link reset} frees everything at once. The memory never shrinks,
 * so its size is the peak of what one merge step needed.
 */
export class Arena {
  readonly #memory = new WebAssembly.Memory({ initial: 1, maximum: 65_536 });
  readonly #kernel: Kernel;
  #used = 0;

  constructor() {
    const module = new WebAssembly.Module(gemmModule());
    const instance = new WebAssembly.Instance(module, { env: { memory: this.#memory } });
    const kernel = instance.exports["gemm"];
    if (typeof kernel !== "function") throw new TypeError("The kernel module has no gemm");
    this.#kernel = (...parameters): void => {
      Reflect.apply(kernel, undefined, parameters);
    };
  }

  reset(): void {
    this.#used = 0;
  }

  /** A matrix of zeros. */
  matrix(rows: number, columns: number): Matrix {
    const byteOffset = this.#used;
    const end = byteOffset + Math.ceil((rows * columns * 4) / 16) * 16;
    if (end > ARENA_MAX_BYTES) {
      throw new MergeFault(
        "CAPABILITY_RESOURCE",
        "matrix_too_large",
        `A dense ${rows} x ${columns} delta needs more than 4 GiB`,
      );
    }
    const missing = Math.ceil((end - this.#memory.buffer.byteLength) / PAGE_BYTES);
    if (missing > 0) this.#memory.grow(missing);
    this.#used = end;
    const memory = this.#memory;
    const values = (): Float32Array<ArrayBuffer> => {
      return new Float32Array(memory.buffer, byteOffset, rows * columns);
    };
    values().fill(0);
    return { rows, columns, byteOffset, values };
  }

  /**
   * `c += a * b`, in float32. Every entry sums its products in order of the inner index, so the
   * result does not depend on how rows are grouped into calls.
   */
  multiply(c: Matrix, a: Matrix, b: Matrix): void {
    this.multiplyRows(c, { matrix: a, from: 0 }, b);
  }

  /** `c += a[from .. from + c.rows] * b`. */
  multiplyRows(c: Matrix, a: { readonly matrix: Matrix; readonly from: number }, b: Matrix): void {
    const depth = a.matrix.columns;
    const [lda, ldb, ldc] = [depth * 4, b.columns * 4, c.columns * 4];
    const rows = c.rows - (c.rows % ROWS);
    const columns = c.columns - (c.columns % COLUMNS);
    const aOffset = a.matrix.byteOffset + a.from * lda;
    if (rows > 0 && columns > 0) {
      for (let k = 0; k < depth; k += DEPTH) {
        const pa = aOffset + k * 4;
        const pb = b.byteOffset + k * ldb;
        const inner = Math.min(DEPTH, depth - k);
        this.#kernel(c.byteOffset, ldc, pa, lda, pb, ldb, rows, columns, inner);
      }
    }
    const rest = { c: c.values(), a: a.matrix.values(), b: b.values(), width: c.columns, depth };
    multiplyEdge(rest, { from: a.from, rowStart: 0, rowEnd: rows, columnStart: columns });
    multiplyEdge(rest, { from: a.from, rowStart: rows, rowEnd: c.rows, columnStart: 0 });
  }
}

interface Operands {
  readonly c: Float32Array;
  readonly a: Float32Array;
  readonly b: Float32Array;
  readonly width: number;
  readonly depth: number;
}

/** What the 4 x 8 kernel leaves over, with the same roundings in the same order. */
function multiplyEdge(
  { c, a, b, width, depth }: Operands,
  edge: { from: number; rowStart: number; rowEnd: number; columnStart: number },
): void {
  for (let row = edge.rowStart; row < edge.rowEnd; row += 1) {
    for (let column = edge.columnStart; column < width; column += 1) {
      let sum = c[row * width + column] ?? 0;
      for (let k = 0; k < depth; k += 1) {
        const product = Math.fround(
          (a[(edge.from + row) * depth + k] ?? 0) * (b[k * width + column] ?? 0),
        );
        sum = Math.fround(sum + product);
      }
      c[row * width + column] = sum;
    }
  }
}

/** Parameters: addresses and row strides in bytes of c, a, b; then rows, columns, depth. */
const [C, LDC, A, LDA, B, LDB, M, N, K] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;
const [ROW, COLUMN, STEP, PB, PC] = [9, 10, 11, 12, 13] as const;
const PA = [14, 15, 16, 17] as const;
const ACCUMULATORS = [18, 19, 20, 21, 22, 23, 24, 25] as const;
const [LEFT, RIGHT, SPLAT] = [26, 27, 28] as const;

/** The register-blocked inner kernel: 4 rows of A against 8 columns of B. */
function gemmModule(): Uint8Array<ArrayBuffer> {
  const parameters = Array.from({ length: 9 }, () => I32);
  const locals = [
    ...Array.from({ length: 9 }, () => I32),
    ...Array.from({ length: 11 }, () => V128),
  ];
  const columnLoop = whileLoop(
    [...get(COLUMN), ...get(N), ...isBelow],
    [...loadTile(), ...depthLoop(), ...storeTile(), ...advance(COLUMN, constant(COLUMNS))],
  );
  const body = whileLoop(
    [...get(ROW), ...get(M), ...isBelow],
    [...constant(0), ...set(COLUMN), ...columnLoop, ...advance(ROW, constant(ROWS))],
  );
  return assemble({ name: "gemm", parameters, locals, body });
}

function depthLoop(): Code {
  const rows = PA.flatMap((pointer, row) => [
    ...get(pointer),
    ...loadSplat(0),
    ...set(SPLAT),
    ...accumulate(2 * row, LEFT),
    ...accumulate(2 * row + 1, RIGHT),
    ...advance(pointer, constant(4)),
  ]);
  const loads = [
    ...get(PB),
    ...loadFloats(0),
    ...set(LEFT),
    ...get(PB),
    ...loadFloats(16),
    ...set(RIGHT),
  ];
  const steps = [...advance(PB, get(LDB)), ...advance(STEP, constant(1))];
  return whileLoop([...get(STEP), ...get(K), ...isBelow], [...loads, ...rows, ...steps]);
}

function accumulate(index: number, operand: number): Code {
  const local = ACCUMULATORS[index] ?? 0;
  return [
    ...get(local),
    ...get(SPLAT),
    ...get(operand),
    ...multiplyFloats,
    ...addFloats,
    ...set(local),
  ];
}

/** Sets the pointers of one tile and loads its eight accumulators. */
function loadTile(): Code {
  const pointers = PA.flatMap((pointer, row) => {
    return [...get(A), ...rowOffset(row, LDA), ...add, ...set(pointer)];
  });
  const accumulators = ACCUMULATORS.flatMap((local, index) => {
    return [...tileRow(index >> 1), ...loadFloats((index & 1) * 16), ...set(local)];
  });
  const columnBytes = [...get(COLUMN), ...constant(4), ...multiply];
  return [
    ...pointers,
    ...get(B),
    ...columnBytes,
    ...add,
    ...set(PB),
    ...get(C),
    ...columnBytes,
    ...add,
    ...set(PC),
    ...accumulators,
    ...constant(0),
    ...set(STEP),
  ];
}

function storeTile(): Code {
  return ACCUMULATORS.flatMap((local, index) => {
    return [...tileRow(index >> 1), ...get(local), ...storeFloats((index & 1) * 16)];
  });
}

/** `(ROW + row) * stride`. */
function rowOffset(row: number, stride: number): Code {
  return [...get(ROW), ...constant(row), ...add, ...get(stride), ...multiply];
}

function tileRow(row: number): Code {
  return [...get(PC), ...rowOffset(row, LDC), ...add];
}
