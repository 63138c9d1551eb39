import { CjmError } from "../errors/cjm-error.ts";
import { COLUMNS, type Kind, type Row } from "./diagnostics-records.ts";

/** Version of the schema below. A disposable store is not migrated: another version is put aside. */
export const DIAGNOSTICS_VERSION = 2;

/** Bounds of a block: what one look at a single row of it costs. */
const MAX_ROWS = 128;
const MAX_CHARACTERS = 32 * 1024;
/** Of the form 2026-01-01T00: a block that is as old as its newest row must not span long. */
const HOUR_CHARACTERS = 13;

/** By which columns blocks are found; a term is the letter, a colon and the value. */
const TERMS = [
  ["workerSessionId", "s"],
  ["jobId", "j"],
  ["level", "l"],
  ["loggerName", "n"],
] as const;
export type TermColumn = (typeof TERMS)[number][0];

export function termOf(column: TermColumn, value: string): string {
  return `${TERMS.find(([name]) => name === column)?.[1] ?? ""}:${value}`;
}

/** Where text of a worker stands. */
const REDACTED = new Set<string>(["level", "loggerName", "message", "excText", "content"]);

/**
 * Tables of rows that arrive together and are stored together: a row of SQLite for each line, with its
 * indices, costs ten times as much as the line does. `last_seq` is the number of a block's last row.
 */
export const DIAGNOSTICS_SCHEMA = (["record", "chunk"] as const)
  .map(
    (kind) => `
create table if not exists ${kind}_blocks (
  last_seq integer primary key autoincrement,
  count integer not null,
  first_ts text not null,
  last_ts text not null,
  terms text not null,
  body text not null
);
create index if not exists idx_${kind}_blocks_ts on ${kind}_blocks (last_ts);
create table if not exists ${kind}_terms (
  term text not null,
  last_seq integer not null,
  primary key (term, last_seq)
) without rowid;
create trigger if not exists ${kind}_blocks_added after insert on ${kind}_blocks begin
  insert into ${kind}_terms select value, new.last_seq from json_each(new.terms);
end;
create trigger if not exists ${kind}_blocks_deleted after delete on ${kind}_blocks begin
  delete from ${kind}_terms
  where last_seq = old.last_seq and term in (select value from json_each(old.terms));
end;
`,
  )
  .join("");

export interface Block {
  readonly kind: Kind;
  readonly count: number;
  readonly firstTs: string;
  readonly lastTs: string;
  /** JSON array of its terms. */
  readonly terms: string;
  /** JSON array of all values, row after row; 0 stands for the value above. */
  readonly body: string;
}

/** Gathers rows of one kind into blocks, in their order. */
export class BlockBuilder {
  readonly #kind: Kind;
  readonly #redact: (text: string) => string;
  readonly #onBlock: (block: Block) => void;
  #rows: Row[] = [];
  #characters = 0;

  /** `redact` is applied to the free text of every row. */
  constructor(kind: Kind, redact: (text: string) => string, onBlock: (block: Block) => void) {
    this.#kind = kind;
    this.#redact = redact;
    this.#onBlock = onBlock;
  }

  add(row: Row): void {
    const first = this.#rows[0];
    if (first !== undefined && hourOf(first) !== hourOf(row)) this.end();
    this.#rows.push(row);
    for (const value of row) this.#characters += value?.length ?? 0;
    if (this.#rows.length >= MAX_ROWS || this.#characters >= MAX_CHARACTERS) this.end();
  }

  /** Delivers what has been added since the last block. */
  end(): void {
    if (this.#rows.length === 0) return;
    const rows = this.#redacted();
    this.#rows = [];
    this.#characters = 0;
    this.#onBlock(blockOf(this.#kind, rows));
  }

  /** One scan of all the texts: there is hardly ever a secret in them. */
  #redacted(): readonly Row[] {
    const columns = COLUMNS[this.#kind].map((name) => REDACTED.has(name));
    const isFree = (_: unknown, column: number): boolean => columns[column] === true;
    const whole = this.#rows.map((row) => row.filter(isFree).join("\n")).join("\n");
    if (this.#redact(whole) === whole) return this.#rows;
    return this.#rows.map((row) =>
      row.map((value, column) =>
        value !== null && columns[column] === true ? this.#redact(value) : value,
      ),
    );
  }
}

function hourOf(row: Row): string {
  return (row[0] ?? "").slice(0, HOUR_CHARACTERS);
}

function blockOf(kind: Kind, rows: readonly Row[]): Block {
  const times = rows.map(([ts]) => ts ?? "");
  return {
    kind,
    count: rows.length,
    firstTs: times.reduce((least, ts) => (ts < least ? ts : least)),
    lastTs: times.reduce((greatest, ts) => (ts > greatest ? ts : greatest)),
    ...encoded(kind, rows),
  };
}

function encoded(kind: Kind, rows: readonly Row[]): Pick<Block, "terms" | "body"> {
  const terms = new Set<string>();
  const letters = COLUMNS[kind].map((name) => TERMS.find(([column]) => column === name)?.[1]);
  const above: (string | null)[] = letters.map(() => null);
  const values: (string | null | 0)[] = [];
  for (const row of rows) {
    for (let column = 0; column < letters.length; column += 1) {
      const value = row[column] ?? null;
      const isAsAbove = value === above[column];
      values.push(isAsAbove ? 0 : value);
      if (isAsAbove) continue;
      above[column] = value;
      const letter = letters[column];
      if (letter !== undefined && value !== null) terms.add(`${letter}:${value}`);
    }
  }
  return { terms: JSON.stringify([...terms]), body: JSON.stringify(values) };
}

/**
 * Calls `visit` with each row of a block, in their order. One array serves all: what is kept of it
 * must be copied.
 *
 * @throws {CjmError} `DATABASE_CORRUPT` for a body that this program cannot have written.
 */
export function visitRows(
  kind: Kind,
  body: string,
  visit: (row: Row, index: number) => void,
): void {
  const values = valuesOf(body);
  const width = COLUMNS[kind].length;
  const row: (string | null)[] = COLUMNS[kind].map(() => null);
  for (let at = 0; at < values.length; at += width) {
    for (let column = 0; column < width; column += 1) {
      const value = values[at + column];
      if (value !== 0) row[column] = typeof value === "string" ? value : null;
    }
    visit(row, at / width);
  }
}

function valuesOf(body: string): readonly unknown[] {
  try {
    const values: unknown = JSON.parse(body);
    if (Array.isArray(values)) return values;
  } catch (cause) {
    throw new CjmError("DATABASE_CORRUPT", "A block of diagnostics is not readable", { cause });
  }
  throw new CjmError("DATABASE_CORRUPT", "A block of diagnostics is no array");
}
