/** Maps a value of `domain` to its place in `range`. */
export function linear(
  [low, high]: readonly [number, number],
  [from, to]: readonly [number, number],
): (value: number) => number {
  const span = high - low || 1;
  return (value) => from + ((value - low) / span) * (to - from);
}

const STEPS = [1, 2, 5, 10];

/** Round values from 0 or `low` up to `high`, about `count` of them. */
export function ticks(low: number, high: number, count: number): number[] {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * (STEPS.find((one) => one * power >= rough) ?? 10);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  return Array.from({ length: last - first + 1 }, (_, at) => (first + at) * step);
}

/** As {@link ticks} for MiB: round in GiB where there are some. */
export function memoryTicks(low: number, high: number, count: number): number[] {
  const unit = high < 1_024 ? 1 : 1_024;
  return ticks(low / unit, high / unit, count).map((value) => value * unit);
}

const TIME_STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200];

/** Round moments of a stretch of time, in milliseconds from its start. */
export function timeTicks(wholeMs: number, count: number): number[] {
  const rough = wholeMs / 1_000 / count;
  const step = (TIME_STEPS_S.find((one) => one >= rough) ?? rough) * 1_000;
  return Array.from({ length: Math.floor(wholeMs / step) + 1 }, (_, at) => at * step);
}

/** `45 s`, `1:30`, `2:05:00`: a moment counted from the start. */
export function clock(ms: number): string {
  const seconds = ms / 1_000;
  if (seconds < 60) return `${Number(seconds.toFixed(1))} s`;
  const [hours, minutes] = [Math.floor(seconds / 3_600), Math.floor(seconds / 60) % 60];
  const rest = String(Math.floor(seconds % 60)).padStart(2, "0");
  if (hours === 0) return `${minutes}:${rest}`;
  return `${hours}:${String(minutes).padStart(2, "0")}:${rest}`;
}

/** `340 MiB`, `1.2 GiB`. */
export function memory(mb: number): string {
  return mb < 1_024 ? `${Math.round(mb)} MiB` : `${Number((mb / 1_024).toFixed(1))} GiB`;
}

/** Short enough for its place; the whole text belongs into a title. */
export function short(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}
