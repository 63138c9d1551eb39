import { existsSync } from "node:fs";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname } from "node:path";
import BetterSqlite3, { type Database } from "better-sqlite3";
import { CjmError } from "../errors/index.ts";
import { nameOpenFault } from "./sqlite-fault.ts";

/** In their order. Their code is loaded when there is something to migrate. */
const MIGRATIONS = ["0001-initial"] as const;
export type MigrationName = (typeof MIGRATIONS)[number];

/** Marks the file as ours, so that some other program's database is not taken for a journal. */
const APPLICATION_ID = 0x43_4a_4d_31;

/** Longest wait for a lock. It stops the event loop, and what is held is tried again anyway. */
const BUSY_TIMEOUT_MS = 250;

/**
 * Opens `journal.db` for writing, making it first if it is not there.
 *
 * A new file is made beside its place and renamed into it, so a file that exists was complete once:
 * an empty or shortened one is damage, never a beginning.
 *
 * @throws {CjmError} `DATABASE_CORRUPT` naming the file; `DATABASE_NEWER` for a newer schema.
 */
export async function openJournalFile(path: string): Promise<Database> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  if (!existsSync(path)) await createJournalFile(path);
  return openExisting(path, async (sqlite) => {
    // FULL: a committed row must survive a power cut, not only the end of this process.
    configureWriter(sqlite);
    if (checkSchema(sqlite, path) === "older") await migrate(sqlite);
    touchEveryTable(sqlite);
    // SQLite opens a file it may not write for reading, and would tell at the first commit only; not
    // even at its beginning, where the files of an earlier writer are there. Last: a damaged file is
    // not written to.
    try {
      sqlite.exec("BEGIN IMMEDIATE; PRAGMA user_version = 0");
    } finally {
      if (sqlite.inTransaction) sqlite.exec("ROLLBACK");
    }
  });
}

/** Opens an existing `journal.db` for reading only; undefined where there is none. */
export async function openJournalForReading(path: string): Promise<Database | undefined> {
  if (!existsSync(path)) return undefined;
  return openExisting(
    path,
    (sqlite) => {
      checkSchema(sqlite, path);
    },
    { readonly: true },
  );
}

async function openExisting(
  path: string,
  prepare: (sqlite: Database) => Promise<void> | void,
  options: { readonly readonly?: boolean } = {},
): Promise<Database> {
  if ((await stat(path)).size === 0) throw damaged(path, "it is empty");
  let sqlite: Database | undefined;
  try {
    sqlite = new BetterSqlite3(path, { ...options, fileMustExist: true, timeout: BUSY_TIMEOUT_MS });
    await prepare(sqlite);
    return sqlite;
  } catch (error) {
    sqlite?.close();
    throw nameOpenFault(error, path);
  }
}

async function createJournalFile(path: string): Promise<void> {
  // SQLite would replay a log left by a lost database into the new one.
  if (existsSync(`${path}-wal`)) throw damaged(path, "only its write-ahead log is there");
  const draft = `${path}.new`;
  await removeDraft(draft);
  try {
    await writeDraft(draft);
    await rename(draft, path);
  } catch (error) {
    await removeDraft(draft);
    throw error;
  }
  await using folder = await open(dirname(path), "r");
  await folder.sync();
}

async function removeDraft(draft: string): Promise<void> {
  for (const suffix of ["", "-wal", "-shm"]) await rm(`${draft}${suffix}`, { force: true });
}

async function writeDraft(draft: string): Promise<void> {
  const sqlite = new BetterSqlite3(draft);
  try {
    configureWriter(sqlite);
    sqlite.pragma(`application_id = ${APPLICATION_ID}`);
    await migrate(sqlite);
  } finally {
    sqlite.close();
  }
}

function configureWriter(sqlite: Database): void {
  sqlite.pragma("journal_mode = WAL");
  sqlite.pragma("synchronous = FULL");
  sqlite.pragma("journal_size_limit = 67108864");
  sqlite.pragma("cache_size = -16000");
}

function checkSchema(sqlite: Database, path: string): "current" | "older" {
  if (sqlite.pragma("application_id", { simple: true }) !== APPLICATION_ID) {
    throw damaged(path, "it is not a journal of cjm-substrate");
  }
  const applied = sqlite
    .prepare<[], string>("select name from kysely_migration order by name")
    .pluck()
    .all();
  const known = new Set<string>(MIGRATIONS);
  const unknown = applied.filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new CjmError(
      "DATABASE_NEWER",
      `${path} was written by a newer cjm-substrate (schema ${unknown.join(", ")}); use that version`,
      { details: { path, unknown } },
    );
  }
  return applied.length === MIGRATIONS.length ? "current" : "older";
}

async function migrate(sqlite: Database): Promise<void> {
  const { migrateToLatest } = await import("./migrate.ts");
  await migrateToLatest(sqlite);
}

/** Reads the root page of every table and index: damage is found here and not in mid-run. */
function touchEveryTable(sqlite: Database): void {
  const names = sqlite
    .prepare<[], string>("select name from sqlite_schema where type = 'table'")
    .pluck()
    .all();
  for (const name of names) sqlite.prepare(`select 1 from "${name}" limit 1`).get();
}

function damaged(path: string, reason: string): CjmError {
  return new CjmError(
    "DATABASE_CORRUPT",
    `${path} is damaged: ${reason}. It is left as it is: restore it from a backup, or move it away to begin a new one`,
    { details: { path } },
  );
}
