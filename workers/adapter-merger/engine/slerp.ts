import { dot, type Thin } from "../math/thin.ts";
import type { Factors } from "./module-io.ts";

/** Above this cosine the arc is a line to float32. */
const PARALLEL = 0.9995;

/**
 * Factors of a spherical interpolation between two vectors with these inner products.
 *
 * Source: Shoemake, "Animating rotation with quaternion curves" (1985); angles are those of the
 * normalised vectors, the vectors themselves keep their lengths.
 */
export function slerpFactors(
  { xx, yy, xy }: { readonly xx: number; readonly yy: number; readonly xy: number },
  position: number,
): readonly [number, number] {
  const norms = Math.sqrt(xx * yy);
  const cosine = norms === 0 ? 1 : Math.min(1, Math.max(-1, xy / norms));
  if (Math.abs(cosine) > PARALLEL) return [1 - position, position];
  const angle = Math.acos(cosine);
  const sine = Math.sin(angle);
  return [Math.sin((1 - position) * angle) / sine, Math.sin(position * angle) / sine];
}

/** Weights of two adapters' deltas, whose inner products follow from their factors. */
export function slerpWeights(
  factors: readonly Factors[],
  { a, b }: { readonly a: Thin; readonly b: Thin },
  position: number | undefined,
): readonly number[] {
  const [x, y] = factors;
  if (x === undefined || y === undefined) throw new TypeError("Slerp needs two adapters");
  const rows = [
    { from: 0, count: x.source.rank, scaling: x.source.scaling },
    { from: x.source.rank, count: y.source.rank, scaling: y.source.scaling },
  ] as const;
  const inner = (left: (typeof rows)[number], right: (typeof rows)[number]): number => {
    let sum = 0;
    for (let i = left.from; i < left.from + left.count; i += 1) {
      for (let j = right.from; j < right.from + right.count; j += 1) {
        const onA = dot(a.values, i * a.columns, j * a.columns, a.columns);
        sum += onA * dot(b.values, i * b.columns, j * b.columns, b.columns);
      }
    }
    return sum * left.scaling * right.scaling;
  };
  const [first, second] = rows;
  const products = { xx: inner(first, first), yy: inner(second, second), xy: inner(first, second) };
  return slerpFactors(products, position ?? positionOf([x.source.weight, y.source.weight]));
}

/** Where between two inputs their weights point. */
export function positionOf([first, second]: readonly [number, number]): number {
  return second / (first + second);
}
