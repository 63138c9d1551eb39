import { existsSync } from "node:fs";
import BetterSqlite3, { type Database } from "better-sqlite3";
import { CjmError } from "../errors/cjm-error.ts";
import { DIAGNOSTICS_VERSION, termOf, visitRows } from "./diagnostics-blocks.ts";
import {
  type ChunkFilter,
  COLUMNS,
  type Kind,
  type RecordFilter,
  RESOURCES_LOGGER,
  type Row,
  type StoredChunk,
  type StoredRecord,
} from "./diagnostics-records.ts";
import { nameDamage } from "./sqlite-fault.ts";

/** The terms of a filter, that of the fewest blocks first: blocks are found by it. */
const BY_RARITY = ["jobId", "loggerName", "level", "workerSessionId"] as const;

interface StoredBlock {
  readonly last_seq: number;
  readonly count: number;
  readonly body: string;
}

/**
 * Reads of `diagnostics.db`, beside the thread that writes it or without one.
 *
 * A damaged file gives `DATABASE_CORRUPT`, one of another version `STORE_REJECTED`.
 */
export class DiagnosticsReader implements AsyncDisposable {
  readonly #sqlite: Database;
  readonly #path: string;
  #isChecked = false;

  private constructor(sqlite: Database, path: string) {
    this.#sqlite = sqlite;
    this.#path = path;
  }

  /** Undefined where nothing was ever logged. */
  static open(path: string): DiagnosticsReader | undefined {
    if (!existsSync(path)) return undefined;
    return new DiagnosticsReader(
      new BetterSqlite3(path, { readonly: true, fileMustExist: true }),
      path,
    );
  }

  /** Structured records in order of arrival. */
  // oxlint-disable-next-line require-await -- a failure is a rejection
  async queryRecords(filter: RecordFilter = {}): Promise<readonly StoredRecord[]> {
    return this.#query("record", filter, recordOf);
  }

  /** Raw output lines in order of arrival. */
  // oxlint-disable-next-line require-await -- a failure is a rejection
  async queryChunks(filter: ChunkFilter = {}): Promise<readonly StoredChunk[]> {
    return this.#query("chunk", filter, chunkOf);
  }

  #query<Entry>(
    kind: Kind,
    filter: RecordFilter,
    toEntry: (seq: number, row: Row) => Entry,
  ): readonly Entry[] {
    const { afterSeq = 0, limit = Number.POSITIVE_INFINITY, descending = false } = filter;
    const fits = predicate(kind, filter);
    const found: Entry[] = [];
    try {
      for (const { last_seq: lastSeq, count, body } of this.#blocks(kind, filter)) {
        const entries: Entry[] = [];
        visitRows(kind, body, (row, index) => {
          const seq = lastSeq - count + 1 + index;
          if (seq > afterSeq && fits(row)) entries.push(toEntry(seq, row));
        });
        if (descending) entries.reverse();
        found.push(...entries.slice(0, limit - found.length));
        if (found.length >= limit) break;
      }
      return found;
    } catch (error) {
      throw nameDamage(error, this.#path);
    }
  }

  /** The blocks that may hold what is asked for; they are found by the rarest of the terms. */
  #blocks(kind: Kind, filter: RecordFilter): Iterable<StoredBlock> {
    if (this.#isEmpty()) return [];
    const terms = BY_RARITY.flatMap((column) => {
      const value = filter[column];
      return value === undefined ? [] : [termOf(column, value)];
    });
    const { afterSeq, sinceTs, untilTs, descending } = filter;
    const [rarest, ...others] = terms;
    const wheres: (readonly [sql: string, value: string | number | undefined])[] = [
      ["t.term = ?", rarest],
      ...others.map(
        (term) =>
          [
            `exists (select 1 from ${kind}_terms o where o.term = ? and o.last_seq = b.last_seq)`,
            term,
          ] as const,
      ),
      [`${rarest === undefined ? "b" : "t"}.last_seq > ?`, afterSeq],
      ["b.last_ts >= ?", sinceTs],
      ["b.first_ts <= ?", untilTs],
    ];
    const given = wheres.filter(([, value]) => value !== undefined);
    const order = `${rarest === undefined ? "b" : "t"}.last_seq ${descending === true ? "desc" : "asc"}`;
    const from =
      rarest === undefined
        ? `${kind}_blocks b`
        : `${kind}_terms t cross join ${kind}_blocks b on b.last_seq = t.last_seq`;
    const where = given.length === 0 ? "" : `where ${given.map(([sql]) => sql).join(" and ")}`;
    return this.#sqlite
      .prepare<unknown[], StoredBlock>(
        `select b.last_seq, b.count, b.body from ${from} ${where} order by ${order}`,
      )
      .iterate(...given.map(([, value]) => value));
  }

  /** True for a file that its first host has only begun to make. */
  #isEmpty(): boolean {
    if (this.#isChecked) return false;
    const version = this.#sqlite.pragma("user_version", { simple: true });
    if (version === 0) return true;
    if (version !== DIAGNOSTICS_VERSION) {
      throw new CjmError(
        "STORE_REJECTED",
        `${this.#path} is of version ${String(version)}, not ${DIAGNOSTICS_VERSION}; the next host puts it aside`,
      );
    }
    this.#isChecked = true;
    return false;
  }

  // oxlint-disable-next-line require-await -- as any other resource of a host
  async [Symbol.asyncDispose](): Promise<void> {
    this.#sqlite.close();
  }
}

/** Whether a row is asked for; a block that was found by its terms holds others too. */
function predicate(kind: Kind, filter: RecordFilter): (row: Row) => boolean {
  const columns: readonly string[] = COLUMNS[kind];
  const wanted = BY_RARITY.flatMap((name) => {
    const value = filter[name];
    return value === undefined ? [] : [[columns.indexOf(name), value] as const];
  });
  const loggerColumn = columns.indexOf("loggerName");
  const { loggerName, sinceTs = "", untilTs } = filter;
  return (row) => {
    const ts = row[0] ?? "";
    if (ts < sinceTs || (untilTs !== undefined && ts > untilTs)) return false;
    if (loggerName === undefined && row[loggerColumn] === RESOURCES_LOGGER) return false;
    return wanted.every(([column, value]) => row[column] === value);
  };
}

function recordOf(seq: number, row: Row): StoredRecord {
  const [ts, workerSessionId = null, jobId = null, level, loggerName, message, excText = null] =
    row;
  return {
    seq,
    ts: ts ?? "",
    workerSessionId,
    jobId,
    level: level ?? "",
    loggerName: loggerName ?? "",
    message: message ?? "",
    excText,
  };
}

function chunkOf(seq: number, [ts, workerSessionId = null, stream, content]: Row): StoredChunk {
  return { seq, ts: ts ?? "", workerSessionId, stream: stream ?? "", content: content ?? "" };
}
