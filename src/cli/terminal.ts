import { stripVTControlCharacters } from "node:util";
import pc from "picocolors";

/** Colours only on a terminal, never with a `NO_COLOR` that is not empty. */
export const color = pc.createColors(
  process.stdout.isTTY && (process.env["NO_COLOR"] ?? "") === "" && process.env["TERM"] !== "dumb",
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

/** Cuts what does not fit in `columns`; colours do not count. */
export function fit(text: string, columns: number): string {
  const plain = stripVTControlCharacters(text);
  if (plain.length <= columns) return text;
  return `${plain.slice(0, Math.max(0, columns - 1))}…`;
}

/** Columns as wide as their widest cell; the last one is cut to the terminal. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) {
      widths[index] = Math.max(widths[index] ?? 0, stripVTControlCharacters(cell).length);
    }
  }
  return rows
    .map((row) => {
      const line = row
        .map((cell, index) =>
          index === row.length - 1
            ? cell
            : cell + " ".repeat((widths[index] ?? 0) - stripVTControlCharacters(cell).length),
        )
        .join("  ");
      return process.stdout.isTTY ? fit(line.trimEnd(), width()) : line.trimEnd();
    })
    .join("\n");
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
  process.stdout.write(`${text}\n`);
}

export function printError(text: string): void {
  process.stderr.write(`${text}\n`);
}
