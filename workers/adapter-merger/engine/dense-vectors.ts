import type { Arena, Matrix } from "../math/gemm.ts";
import type { ModuleJob } from "./jobs.ts";
import type { Factors } from "./module-io.ts";
import type { VectorSet } from "./vector-merge.ts";

const TARGET_CHUNK = 16_384;
const KERNEL_ROWS = 4;

/**
 * The deltas `scaling * B * A` of a module as vectors, of which only a few rows exist at a time:
 * forming a row again costs less than the memory to keep it.
 */
export function denseVectors(
  arena: Arena,
  { inputs, outputs }: ModuleJob,
  factors: readonly Factors[],
): VectorSet {
  const rowsAtOnce = Math.max(1, Math.floor(TARGET_CHUNK / (inputs * KERNEL_ROWS))) * KERNEL_ROWS;
  const rows = arena.matrix(Math.min(rowsAtOnce, outputs), inputs);
  const sides = factors.map(({ source, a, b }) => {
    const left = arena.matrix(outputs, source.rank);
    const values = left.values();
    for (let i = 0; i < values.length; i += 1) values[i] = (b.values[i] ?? 0) * source.scaling;
    const right = arena.matrix(source.rank, inputs);
    right.values().set(a.values);
    return { left, right };
  });
  return {
    inputs: factors.length,
    length: inputs * outputs,
    rowLength: inputs,
    chunkLength: rows.rows * inputs,
    load(input, start, out): void {
      const side = sides[input];
      if (side === undefined) throw new RangeError(`No input ${input}`);
      const part: Matrix = { ...rows, rows: out.length / inputs };
      rows.values().fill(0);
      arena.multiplyRows(part, { matrix: side.left, from: start / inputs }, side.right);
      out.set(rows.values().subarray(0, out.length));
    },
  };
}
