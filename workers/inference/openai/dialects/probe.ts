import type { Distribution } from "./dialect.ts";

/** The fixed text after which two states of a model are compared; long enough for every position to matter. */
export const PROBE_PROMPT =
  "The quick brown fox jumps over the lazy dog. In 1492, def main(): return 3.14; and so it goes on to";

/** Alternatives asked for; servers allow 20 unless told otherwise. */
export const PROBE_TOP = 20;

/**
 * Largest change of a log-probability between two lists of likeliest tokens. A token that one list
 * lacks is at most as likely there as that list's last, so its change is at least the difference to it.
 */
export function largestChange(before: Distribution, after: Distribution): number {
  const floorBefore = Math.min(...before.values());
  const floorAfter = Math.min(...after.values());
  let largest = 0;
  for (const [token, value] of before) {
    largest = Math.max(largest, difference(value, after.get(token), floorAfter));
  }
  for (const [token, value] of after) {
    if (before.has(token)) continue;
    largest = Math.max(largest, difference(value, undefined, floorBefore));
  }
  return largest;
}

function difference(value: number, other: number | undefined, floor: number): number {
  if (other !== undefined) return Math.abs(value - other);
  return Math.max(0, value - floor);
}
