import { isatty } from "node:tty";
import { stripVTControlCharacters } from "node:util";
import pc from "picocolors";

/** Colours only on a terminal, never with a `NO_COLOR` that is not empty. */
export const color = pc.createColors(
  // In a pipe `stdout.isTTY` is undefined, which picocolors takes for "find out", and CI for yes.
  isatty(process.stdout.fd) &&
    (process.env["NO_COLOR"] ?? "") === "" &&
    process.env["TERM"] !== "dumb",
);

export const isInteractive = (): boolean =>
  process.stdout.isTTY && process.env["CI"] === undefined && process.env["TERM"] !== "dumb";

export const width = (): number => process.stdout.columns ?? 80;

/** Text of a worker or a file, made harmless for a terminal: no control character gets through. */
export function harmless(text: string): string {
  return stripVTControlCharacters(text).replaceAll(
    // oxlint-disable-next-line no-control-regex -- exactly these must not reach a terminal
    /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/gu,
    (char) => `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}

/** Cuts what does not fit in `columns`; colours do not count, and stay. */
export function fit(text: string, columns: number): string {
  if (stripVTControlCharacters(text).length <= columns) return text;
  let room = Math.max(0, columns - 1);
  let cut = "";
  for (const [part] of text.matchAll(COLOUR_OR_TEXT)) {
    if (part.startsWith("\u001b")) cut += part;
    else {
      cut += room === 0 ? "" : part.slice(0, room);
      room -= Math.min(room, part.length);
    }
  }
  return `${cut}…`;
}

// oxlint-disable-next-line no-control-regex -- colours are control sequences
const COLOUR_OR_TEXT = /\u001b\[[\d;]*m|[^\u001b]+/gu;
const GAP = "  ";

/** Columns as wide as their widest cell; on a terminal the widest ones give way until it fits. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) {
      widths[index] = Math.max(widths[index] ?? 0, stripVTControlCharacters(cell).length);
    }
  }
  const cap = process.stdout.isTTY ? capFor(widths, width()) : Infinity;
  const line = (row: readonly string[]): string =>
    row
      .map((cell, index) => {
        const columns = Math.min(widths[index] ?? 0, cap);
        const text = fit(cell, columns);
        return text + " ".repeat(Math.max(0, columns - stripVTControlCharacters(text).length));
      })
      .join(GAP)
      .trimEnd();
  return rows.map(line).join("\n");
}

/** The width to which the widest columns must shrink for all of them to fit. */
function capFor(widths: readonly number[], columns: number): number {
  let cap = Math.max(...widths);
  const total = (): number =>
    widths.reduce((sum, one) => sum + Math.min(one, cap) + GAP.length, -GAP.length);
  while (cap > 4 && total() > columns) cap -= 1;
  return cap;
}

/** `1.2 s`, `340 ms`, `2 min 05 s`. */
export function duration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  return `${Math.floor(seconds / 60)} min ${String(seconds % 60).padStart(2, "0")} s`;
}

export function printJson(value: unknown): void {
  process.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
}

export function print(text: string): void {
  process.stdout.write(`${onlyColours(text)}\n`);
}

export function printError(text: string): void {
  process.stderr.write(`${onlyColours(text)}\n`);
}

/** The net below {@link harmless}: of all control sequences only colours get through. */
function onlyColours(text: string): string {
  return text.replaceAll(CONTROL, (sequence) =>
    sequence.length > 1
      ? sequence
      : // As JSON writes it, since some of what is printed is JSON.
        `\\u${sequence.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

// oxlint-disable-next-line no-control-regex -- exactly these must not reach a terminal
const CONTROL = /\u001b\[[\d;]*m|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/gu;
