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

/** Where between two inputs their weights point. */
export function positionOf([first, second]: readonly [number, number]): number {
  return second / (first + second);
}
