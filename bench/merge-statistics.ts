/** Median and range of repeated measurements, three digits each. */
export function summary(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const [low = NaN, high = NaN] = [sorted[middle - 1 + (sorted.length % 2)], sorted[middle]];
  const digits = (value: number | undefined): string => (value ?? NaN).toPrecision(3);
  const median = digits((low + high) / 2);
  return `median ${median}  [${digits(sorted[0])} .. ${digits(sorted.at(-1))}]  n=${sorted.length}`;
}
