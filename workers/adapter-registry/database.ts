import { mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import BetterSqlite3, { type Database } from "better-sqlite3";
import { CjmError } from "cjm-substrate/worker";

/** Marks the file as ours; `cjm-ctl adapters` looks for it too. */
const APPLICATION_ID = 0x43_4a_4d_52;
const SCHEMA_VERSION = 1;
/** How long the worker before this one may take to be gone. */
const LOCK_PATIENCE_MS = 10_000;
const LOCK_POLL_MS = 50;

/**
 * What an adapter is can neither be changed nor deleted, by nobody who opens this file; `incoming`
 * names the content that is being copied, so that a crash leaves nothing that is not accounted for.
 */
const SCHEMA = `
create table adapter (
  id text primary key,
  version integer not null,
  task_type text not null,
  base_model_id text not null,
  rank integer not null,
  created_at text not null,
  file_hash text not null unique,
  file_size_bytes integer not null,
  files text not null,
  source text not null,
  method text,
  session_id text,
  agent_id text,
  parent_ids text not null,
  generation integer not null,
  training_task_hash text,
  pass_rate real check (pass_rate between 0 and 1),
  fitness_score real check (fitness_score between 0 and 1),
  is_archived integer not null check (is_archived in (0, 1)),
  level text not null check (level in ('task', 'domain')),
  domain text
) strict;
create index adapter_task on adapter (task_type, is_archived, fitness_score desc);
create index adapter_training_task on adapter (training_task_hash);
create table decision (
  seq integer primary key,
  ts text not null,
  adapter_id text not null references adapter (id),
  kind text not null,
  reason text not null,
  evidence text not null,
  job_id text
) strict;
create unique index decision_of_job on decision (job_id, kind, adapter_id) where job_id is not null;
create index decision_of_adapter on decision (adapter_id, seq);
create table incoming (file_hash text primary key, ts text not null) strict;
create trigger adapter_is_written_once before update of
  id, version, task_type, base_model_id, rank, created_at, file_hash, file_size_bytes, files, source,
  method, session_id, agent_id, parent_ids, generation, training_task_hash
on adapter begin select raise(abort, 'an adapter is written once'); end;
create trigger adapter_is_kept before delete on adapter
begin select raise(abort, 'an adapter is archived, never deleted'); end;
create trigger decision_is_written_once before update on decision
begin select raise(abort, 'a decision is written once'); end;
create trigger decision_is_kept before delete on decision
begin select raise(abort, 'a decision is kept'); end;
pragma application_id = ${APPLICATION_ID};
pragma user_version = ${SCHEMA_VERSION};`;

/** The right to write in a registry's folder; the kernel takes it back when the process dies. */
export async function lockFolder(folder: string, signal: AbortSignal): Promise<Disposable> {
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const lock = new BetterSqlite3(join(folder, "registry.lock"), { timeout: 0 });
  const giveUpMs = performance.now() + LOCK_PATIENCE_MS;
  for (;;) {
    try {
      lock.exec("begin exclusive");
      return { [Symbol.dispose]: () => lock.close() };
    } catch (error) {
      if (!isBusy(error) || performance.now() > giveUpMs) {
        lock.close();
        throw isBusy(error) ? lockedError(folder, error) : error;
      }
      await delay(LOCK_POLL_MS, undefined, { signal });
    }
  }
}

/**
 * Opens `registry.db`, making it first in a folder that has none.
 *
 * @throws {CjmError} `DATABASE_CORRUPT` for a damaged file, and for a folder that has adapters but no
 *   records of them; `DATABASE_NEWER` for a newer schema.
 */
export function openDatabase(folder: string): Database {
  const path = join(folder, "registry.db");
  let database: Database | undefined;
  try {
    database = new BetterSqlite3(path);
    database.pragma("journal_mode = WAL");
    // FULL: a committed row survives a power cut, not only the end of this process.
    database.pragma("synchronous = FULL");
    database.pragma("foreign_keys = ON");
    prepareSchema(database, { folder, path });
    return database;
  } catch (error) {
    database?.close();
    throw isDamage(error) ? damaged(path, error.message, error) : error;
  }
}

function prepareSchema(
  database: Database,
  { folder, path }: { readonly folder: string; readonly path: string },
): void {
  const version = Number(database.pragma("user_version", { simple: true }));
  if (version > SCHEMA_VERSION) {
    throw new CjmError(
      "DATABASE_NEWER",
      `${path} was written by a newer adapter-registry (schema ${version}); use that one`,
    );
  }
  if (version === SCHEMA_VERSION) {
    if (database.pragma("application_id", { simple: true }) === APPLICATION_ID) return;
    throw damaged(path, "it is not a registry of adapters");
  }
  if (readdirSync(adaptersFolder(folder)).length > 0) {
    throw damaged(path, "there are adapters beside it that it does not know");
  }
  database.transaction(() => database.exec(SCHEMA))();
}

function adaptersFolder(folder: string): string {
  const path = join(folder, "adapters");
  mkdirSync(path, { recursive: true });
  return path;
}

function isBusy(error: unknown): error is Error {
  return error instanceof BetterSqlite3.SqliteError && error.code.startsWith("SQLITE_BUSY");
}

function isDamage(error: unknown): error is Error {
  return (
    error instanceof BetterSqlite3.SqliteError &&
    (error.code.startsWith("SQLITE_CORRUPT") || error.code === "SQLITE_NOTADB")
  );
}

function lockedError(folder: string, cause: Error): CjmError {
  return new CjmError("DATA_DIR_LOCKED", `Another worker writes in ${folder}`, { cause });
}

function damaged(path: string, reason: string, cause?: unknown): CjmError {
  return new CjmError(
    "DATABASE_CORRUPT",
    `${path} is damaged: ${reason}. It is left as it is: restore it from a backup or an export`,
    { cause, details: { path } },
  );
}
