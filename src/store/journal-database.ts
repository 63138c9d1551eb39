import type { Database } from "better-sqlite3";
import { Kysely, SqliteDialect } from "kysely";
import { CjmError } from "../errors/index.ts";
import { newId } from "../util/ids.ts";
import { CODECS } from "./codecs.ts";
import { GroupCommit, type Schedule } from "./group-commit.ts";
import { openJournalFile, openJournalForReading } from "./journal-file.ts";
import { JournalReader } from "./journal-reader.ts";
import { rejected } from "./sqlite-fault.ts";
import type { StagedResult, StorePort, StoreReads, StoreWrite } from "./port.ts";
import type { JournalEntry, JournalEvent, NewJob } from "./records.ts";
import { TableWriter, type LooseSchema, type PreparedWrite } from "./table-writer.ts";

export interface JournalDatabaseOptions {
  /** Clock of the journal's timestamps. @default the wall clock */
  readonly now?: () => Date;
  /** Time between two attempts to commit while commits fail. @default 1000 */
  readonly probeIntervalMs?: number;
  /** Timer of those attempts. @default `setTimeout` */
  readonly schedule?: Schedule;
}

/** The journal and the run state: reads, and writes by whole units. Close it with `await using`. */
export interface JournalDatabase extends StorePort, AsyncDisposable {}

/**
 * Opens (making it if needed) and migrates `journal.db`.
 *
 * The caller must hold the host lock of the data directory: there is one writer.
 *
 * @throws {CjmError} `DATABASE_CORRUPT` naming a file that is damaged, which is left untouched.
 * @throws {CjmError} `DATABASE_NEWER` for a schema of a newer version.
 */
export async function openJournalDatabase(
  path: string,
  options: JournalDatabaseOptions = {},
): Promise<JournalDatabase> {
  const writer = await openJournalFile(path);
  try {
    const reader = await openJournalForReading(path);
    if (reader === undefined) throw new CjmError("DATABASE_CORRUPT", `${path} has disappeared`);
    return new SqliteJournal(writer, reader, path, options);
  } catch (error) {
    writer.close();
    throw error;
  }
}

/**
 * Opens `journal.db` for reading beside a live host; undefined where there is none yet.
 *
 * @throws {CjmError} as {@link openJournalDatabase} does.
 */
export async function openJournalReader(
  path: string,
): Promise<(StoreReads & AsyncDisposable) | undefined> {
  const sqlite = await openJournalForReading(path);
  return sqlite === undefined ? undefined : new JournalReader(sqlite, path);
}

/** What a new job has where its record does not say; the rest is NULL. */
const NEW_JOB = Object.freeze({
  kwargs: {},
  control: {},
  priority: 0,
  attempt: 0,
  retryCount: 0,
  maxRetries: 0,
}) satisfies Partial<NewJob>;

interface EncodedUnit {
  readonly writes: readonly PreparedWrite[];
  /** The unit's journal rows, each with its place among the writes. */
  readonly events: { readonly event: Omit<JournalEvent, "seq">; readonly position: number }[];
}

/** A reader that can also write, on a second connection. */
class SqliteJournal extends JournalReader implements JournalDatabase {
  readonly #sqlite: Database;
  readonly #now: () => Date;
  readonly #commits: GroupCommit;
  readonly #tables: ReturnType<typeof createWriters>;

  constructor(writer: Database, reader: Database, path: string, options: JournalDatabaseOptions) {
    super(reader, path);
    this.#sqlite = writer;
    this.#now = options.now ?? (() => new Date());
    this.#tables = createWriters(writer);
    this.#commits = new GroupCommit(writer, {
      probeIntervalMs: options.probeIntervalMs ?? 1_000,
      schedule: options.schedule ?? timer,
    });
  }

  get available(): boolean {
    return this.#commits.available;
  }

  onAvailability(listener: (available: boolean) => void): () => void {
    return this.#commits.onAvailability(listener);
  }

  async stage(unit: readonly StoreWrite[]): Promise<StagedResult> {
    const { writes, events } = this.#encode(unit);
    const rowIds = await this.#commits.add(writes);
    return {
      events: events.map(({ event, position }) => ({ seq: rowIds[position] ?? 0, ...event })),
    };
  }

  override async [Symbol.asyncDispose](): Promise<void> {
    this.#commits.close();
    await super[Symbol.asyncDispose]();
    this.#sqlite.close();
  }

  #encode(unit: readonly StoreWrite[]): EncodedUnit {
    const ts = this.#now().toISOString();
    const events: EncodedUnit["events"] = [];
    try {
      const writes = unit.map((write, position) => {
        if (write.op !== "journal.append") return this.#prepare(write);
        const event = toEvent(write.event, ts);
        events.push({ event, position });
        return this.#tables.journal.insert(event);
      });
      return { writes, events };
    } catch (error) {
      throw rejected(error);
    }
  }

  // oxlint-disable-next-line eslint/complexity, typescript/consistent-return -- one case for each operation, checked to be all of them
  #prepare(write: Exclude<StoreWrite, { op: "journal.append" }>): PreparedWrite {
    const tables = this.#tables;
    switch (write.op) {
      case "job.insert":
        return tables.job.insert(write.job, NEW_JOB);
      case "job.update":
        return tables.job.update(write.id, write.changes);
      case "composition.insert":
        return tables.composition.insert(write.composition);
      case "composition.update":
        return tables.composition.update(write.id, write.changes);
      case "node.put":
        return tables.node.put(write.node);
      case "items.put":
        return tables.items.put(write.items);
      case "profile.put":
        return tables.profile.putLatest(write.profile, write.profile.key);
      case "profile.delete":
        return tables.profile.delete(write.key);
      case "config.put":
        return tables.config.put(write.config);
      case "config.delete":
        return tables.config.delete(write.instanceId);
      case "cache.put":
        return tables.cache.put(write.entry);
      case "cache.delete":
        return tables.cache.delete(write.key);
    }
  }
}

// oxlint-disable-next-line typescript/explicit-module-boundary-types -- not exported; the shape is the list below
function createWriters(sqlite: Database) {
  const db = new Kysely<LooseSchema>({ dialect: new SqliteDialect({ database: sqlite }) });
  return {
    journal: new TableWriter(sqlite, db, CODECS.journal, ["seq"]),
    job: new TableWriter(sqlite, db, CODECS.job, ["id"]),
    composition: new TableWriter(sqlite, db, CODECS.composition, ["id"]),
    node: new TableWriter(sqlite, db, CODECS.node, ["composition_id", "node_id", "item_index"]),
    items: new TableWriter(sqlite, db, CODECS.items, ["composition_id", "node_id"]),
    profile: new TableWriter(sqlite, db, CODECS.profile, ["key"]),
    config: new TableWriter(sqlite, db, CODECS.config, ["instance_id"]),
    cache: new TableWriter(sqlite, db, CODECS.cache, ["key"]),
  };
}

// oxlint-disable-next-line eslint/complexity -- one default for each column
function toEvent(entry: JournalEntry, ts: string): Omit<JournalEvent, "seq"> {
  return {
    eventId: newId(),
    ts,
    eventType: entry.eventType,
    runId: entry.runId ?? null,
    jobId: entry.jobId ?? null,
    compositionId: entry.compositionId ?? null,
    nodeId: entry.nodeId ?? null,
    capabilityInstanceId: entry.capabilityInstanceId ?? null,
    capabilityName: entry.capabilityName ?? null,
    configHash: entry.configHash ?? null,
    taskName: entry.taskName ?? null,
    method: entry.method ?? null,
    workerSessionId: entry.workerSessionId ?? null,
    actor: entry.actor ?? null,
    workerReported: entry.workerReported ?? false,
    payload: entry.payload ?? {},
  };
}

/** Keeps the process alive on purpose: held units must not be lost by a natural end. */
function timer(callback: () => void, delayMs: number): () => void {
  const handle = setTimeout(callback, delayMs);
  return () => clearTimeout(handle);
}
