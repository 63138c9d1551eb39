import { renameSync, rmSync } from "node:fs";
import { setImmediate as yieldToMessages } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import BetterSqlite3, { type Database } from "better-sqlite3";
import type {
  DiagnosticEntry,
  RetentionResult,
  ThreadReply,
  ThreadRequest,
} from "./diagnostics-records.ts";

/** A disposable store is not migrated: a file of another version is put aside. */
const SCHEMA_VERSION = 1;

const SCHEMA = `
create table if not exists records (
  seq integer primary key autoincrement,
  ts text not null,
  worker_session_id text,
  job_id text,
  level text not null default 'INFO',
  logger_name text not null default '',
  message text not null,
  exc_text text
);
create index if not exists idx_records_job on records (job_id);
create index if not exists idx_records_session on records (worker_session_id);
create index if not exists idx_records_ts on records (ts);
create table if not exists stream_chunks (
  seq integer primary key autoincrement,
  ts text not null,
  worker_session_id text,
  stream text not null default 'stdout',
  content text not null
);
create index if not exists idx_chunks_session on stream_chunks (worker_session_id);
create index if not exists idx_chunks_ts on stream_chunks (ts);
`;

const TABLES = ["records", "stream_chunks"] as const;
type Table = (typeof TABLES)[number];

/** Rows deleted in one transaction; appends go between two of them. */
const DELETE_BATCH = 2_500;

function main(path: string): void {
  const port = parentPort;
  if (port === null) throw new TypeError("This file is the entry of a worker thread");
  const { sqlite, replaced } = openOrReplace(path);
  const write = createWriter(sqlite);
  const reply = (message: ThreadReply): void => port.postMessage(message);

  port.on("message", (request: ThreadRequest) => {
    switch (request.type) {
      case "append":
        reply(append(write, request.entries));
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
    if (version !== 0 && version !== SCHEMA_VERSION) {
      throw new Error(`its schema is version ${String(version)}`);
    }
    sqlite.exec(SCHEMA);
    sqlite.pragma(`user_version = ${SCHEMA_VERSION}`);
    for (const table of TABLES) sqlite.prepare(`select 1 from ${table} limit 1`).get();
    return sqlite;
  } catch (error) {
    sqlite.close();
    throw error;
  }
}

function createWriter(sqlite: Database): (entries: readonly DiagnosticEntry[]) => void {
  const record = sqlite.prepare(
    `insert into records (ts, worker_session_id, job_id, level, logger_name, message, exc_text)
     values (?, ?, ?, ?, ?, ?, ?)`,
  );
  const chunk = sqlite.prepare(
    "insert into stream_chunks (ts, worker_session_id, stream, content) values (?, ?, ?, ?)",
  );
  return sqlite.transaction((entries: readonly DiagnosticEntry[]) => {
    for (const entry of entries) (entry.kind === "record" ? record : chunk).run(entry.row);
  });
}

function append(
  write: (entries: readonly DiagnosticEntry[]) => void,
  entries: readonly DiagnosticEntry[],
): ThreadReply {
  try {
    write(entries);
    return { type: "written", lost: 0, reason: null };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { type: "written", lost: entries.length, reason };
  }
}

/** Age first, then size; the oldest rows of both tables together, in small transactions. */
async function retain(
  sqlite: Database,
  { cutoff, maxBytes }: { readonly cutoff: string | null; readonly maxBytes: number | null },
): Promise<RetentionResult> {
  const deleted: Record<Table, number> = { records: 0, stream_chunks: 0 };
  const deleteUpTo = async (ts: string): Promise<void> => {
    for (const table of TABLES) deleted[table] += await deleteRows(sqlite, table, ts);
  };
  if (cutoff !== null) await deleteUpTo(cutoff);
  const budget = maxBytes ?? Number.POSITIVE_INFINITY;
  while (usedBytes(sqlite) > budget) {
    const ts = oldestBatch(sqlite);
    if (ts === undefined) break;
    await deleteUpTo(ts);
  }
  sqlite.pragma("incremental_vacuum");
  sqlite.pragma("wal_checkpoint(TRUNCATE)");
  return { recordsDeleted: deleted.records, chunksDeleted: deleted.stream_chunks };
}

async function deleteRows(sqlite: Database, table: Table, ts: string): Promise<number> {
  const statement = sqlite.prepare<[string, number]>(
    `delete from ${table} where seq in (select seq from ${table} where ts <= ? order by ts limit ?)`,
  );
  let deleted = 0;
  for (;;) {
    const { changes } = statement.run(ts, DELETE_BATCH);
    deleted += changes;
    if (changes < DELETE_BATCH) return deleted;
    await yieldToMessages();
  }
}

/** Time up to which about one batch of the oldest rows lies; undefined when there is none. */
function oldestBatch(sqlite: Database): string | undefined {
  const nth = TABLES.map(
    (table) => `select * from (select ts from ${table} order by ts limit 1 offset @offset)`,
  ).join(" union all ");
  const statement = sqlite
    .prepare<{ offset: number }, string | null>(`select min(ts) from (${nth})`)
    .pluck();
  for (const offset of [DELETE_BATCH, 100, 1, 0]) {
    const ts = statement.get({ offset });
    if (typeof ts === "string") return ts;
  }
  return undefined;
}

function usedBytes(sqlite: Database): number {
  const count = (name: string): number => Number(sqlite.pragma(name, { simple: true }));
  return (count("page_count") - count("freelist_count")) * count("page_size");
}

main(String(workerData));
