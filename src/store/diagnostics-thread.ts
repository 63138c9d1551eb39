import { renameSync, rmSync } from "node:fs";
import { parentPort, workerData } from "node:worker_threads";
import BetterSqlite3, { type Database } from "better-sqlite3";
import {
  type Block,
  BlockBuilder,
  DIAGNOSTICS_SCHEMA,
  DIAGNOSTICS_VERSION,
} from "./diagnostics-blocks.ts";
import type {
  DiagnosticEntry,
  Kind,
  ThreadData,
  ThreadReply,
  ThreadRequest,
} from "./diagnostics-records.ts";
import { retain } from "./diagnostics-retention.ts";
import { addRows, countOf } from "./diagnostics-rows.ts";
import { createRedactor } from "./redact.ts";

function main({ path, secrets }: ThreadData): void {
  const port = parentPort;
  if (port === null) throw new TypeError("This file is the entry of a worker thread");
  const { sqlite, replaced } = openOrReplace(path);
  const writer = new Writer(sqlite, secrets);
  const reply = (message: ThreadReply): void => port.postMessage(message);

  port.on("message", (request: ThreadRequest) => {
    switch (request.type) {
      case "append":
        reply(append(writer, request.entries));
        break;
      case "learn":
        writer.learn(request.secrets);
        break;
      case "retain":
        void retain(sqlite, request).then(
          (result) => reply({ type: "retained", id: request.id, result, reason: null }),
          (error: unknown) =>
            reply({ type: "retained", id: request.id, result: null, reason: String(error) }),
        );
        break;
      case "close":
        sqlite.close();
        port.close();
        break;
    }
  });
  reply({ type: "ready", replaced });
}

function openOrReplace(path: string): {
  readonly sqlite: Database;
  readonly replaced: string | null;
} {
  try {
    return { sqlite: openDatabase(path), replaced: null };
  } catch (error) {
    const aside = `${path}.old`;
    renameSync(path, aside);
    for (const suffix of ["-wal", "-shm"]) rmSync(`${path}${suffix}`, { force: true });
    const reason = error instanceof Error ? error.message : String(error);
    return { sqlite: openDatabase(path), replaced: `${reason}; moved to ${aside}` };
  }
}

function openDatabase(path: string): Database {
  const sqlite = new BetterSqlite3(path);
  try {
    // Must come before the first table; lets retention give space back without copying the file.
    sqlite.pragma("auto_vacuum = INCREMENTAL");
    sqlite.pragma("journal_mode = WAL");
    sqlite.pragma("synchronous = NORMAL");
    sqlite.pragma("journal_size_limit = 67108864");
    const version = sqlite.pragma("user_version", { simple: true });
    if (version !== 0 && version !== DIAGNOSTICS_VERSION) {
      throw new Error(`its schema is version ${String(version)}`);
    }
    sqlite.exec(DIAGNOSTICS_SCHEMA);
    sqlite.pragma(`user_version = ${DIAGNOSTICS_VERSION}`);
    for (const kind of ["record", "chunk"]) {
      sqlite.prepare(`select 1 from ${kind}_blocks limit 1`).get();
    }
    return sqlite;
  } catch (error) {
    sqlite.close();
    throw error;
  }
}

type Insert = (lastSeq: number, block: Block) => void;

/** The one writer of both tables. */
class Writer {
  /** Writes entries in one transaction; throws if it could not be committed. */
  readonly write: (entries: readonly DiagnosticEntry[]) => void;
  readonly #inserts: Readonly<Record<Kind, Insert>>;
  readonly #secrets: Set<string>;
  #redact: (text: string) => string;
  /** Number of the last row of each table. */
  #last: Readonly<Record<Kind, number>>;

  constructor(sqlite: Database, secrets: readonly string[]) {
    this.#secrets = new Set(secrets);
    this.#redact = createRedactor(secrets);
    this.#inserts = { record: insertInto(sqlite, "record"), chunk: insertInto(sqlite, "chunk") };
    this.#last = { record: lastSeq(sqlite, "record"), chunk: lastSeq(sqlite, "chunk") };
    const transaction = sqlite.transaction((entries: readonly DiagnosticEntry[]) =>
      this.#insert(entries),
    );
    this.write = (entries) => {
      // Kept only when committed: a number that was rolled back is given again.
      this.#last = transaction(entries);
    };
  }

  learn(values: readonly string[]): void {
    for (const value of values) this.#secrets.add(value);
    this.#redact = createRedactor([...this.#secrets]);
  }

  #insert(entries: readonly DiagnosticEntry[]): Readonly<Record<Kind, number>> {
    const last = { ...this.#last };
    const onBlock = (block: Block): void => {
      last[block.kind] += block.count;
      this.#inserts[block.kind](last[block.kind], block);
    };
    const records = new BlockBuilder("record", this.#redact, onBlock);
    const chunks = new BlockBuilder("chunk", this.#redact, onBlock);
    addRows(entries, { record: (row) => records.add(row), chunk: (row) => chunks.add(row) });
    records.end();
    chunks.end();
    return last;
  }
}

function insertInto(sqlite: Database, kind: Kind): Insert {
  const statement = sqlite.prepare(
    `insert into ${kind}_blocks (last_seq, count, first_ts, last_ts, terms, body)
     values (?, ?, ?, ?, ?, ?)`,
  );
  return (seq, { count, firstTs, lastTs, terms, body }) => {
    statement.run(seq, count, firstTs, lastTs, terms, body);
  };
}

/** Numbers are never given twice, whatever retention has deleted. */
function lastSeq(sqlite: Database, kind: Kind): number {
  const statement = sqlite.prepare<[string], number>(
    "select seq from sqlite_sequence where name = ?",
  );
  return statement.pluck().get(`${kind}_blocks`) ?? 0;
}

function append(
  { write }: Pick<Writer, "write">,
  entries: readonly DiagnosticEntry[],
): ThreadReply {
  try {
    write(entries);
    return { type: "written", lost: 0, reason: null };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const lost = entries.reduce((sum, entry) => sum + countOf(entry), 0);
    return { type: "written", lost, reason };
  }
}

// oxlint-disable-next-line typescript/no-unsafe-type-assertion -- given by DiagnosticsStore.open
main(workerData as ThreadData);
