import type { Database } from "better-sqlite3";
import { Kysely, type SelectQueryBuilder, sql, SqliteDialect } from "kysely";
import { CODECS, type TableCodec } from "./codecs.ts";
import type { CompositionFilter, JobFilter, JournalFilter, StoreReads } from "./port.ts";
import type {
  CacheEntry,
  CompositionRecord,
  ForEachItems,
  InstanceConfigRecord,
  JobRecord,
  JournalEvent,
  NodeRecord,
  ProfileRecord,
} from "./records.ts";
import { nameDamage } from "./sqlite-fault.ts";
import type { JournalSchema } from "./tables.ts";

/** Runs a compiled query; every read of this folder goes through it. */
interface Runnable {
  execute(): Promise<readonly object[]>;
}

/** Reads of `journal.db` on a connection of its own, which sees committed rows only. */
export class JournalReader implements StoreReads, AsyncDisposable {
  readonly #connection: Database;
  readonly #db: Kysely<JournalSchema>;
  readonly #path: string;

  /** Takes over the connection; `path` is for messages. */
  constructor(connection: Database, path: string) {
    this.#connection = connection;
    this.#db = new Kysely({ dialect: new SqliteDialect({ database: connection }) });
    this.#path = path;
  }

  queryJournal(filter: JournalFilter = {}): Promise<readonly JournalEvent[]> {
    const conditions = [
      ["job_id", "=", filter.jobId],
      ["run_id", "=", filter.runId],
      ["composition_id", "=", filter.compositionId],
      ["capability_instance_id", "=", filter.capabilityInstanceId],
      ["worker_session_id", "=", filter.workerSessionId],
      ["event_type", "=", filter.eventType],
      ["seq", ">", filter.afterSeq],
      ["ts", ">=", filter.sinceTs?.toISOString()],
      ["ts", "<=", filter.untilTs?.toISOString()],
    ] as const;
    let query = this.#db
      .selectFrom("journal")
      .selectAll()
      .orderBy("seq", filter.descending === true ? "desc" : "asc");
    for (const [column, operator, value] of conditions) {
      if (value !== undefined) query = query.where(column, operator, value);
    }
    if (filter.limit !== undefined) query = query.limit(filter.limit);
    return this.#all(query, CODECS.journal);
  }

  async countJournal(eventType?: string): Promise<number> {
    let query = this.#db.selectFrom("journal").select((eb) => eb.fn.countAll<number>().as("count"));
    if (eventType !== undefined) query = query.where("event_type", "=", eventType);
    const { count } = await this.#guard(() => query.executeTakeFirstOrThrow());
    return count;
  }

  terminalStateEvents(limit?: number): Promise<readonly JournalEvent[]> {
    let query = this.#db
      .selectFrom("journal")
      .selectAll()
      .where("event_type", "=", "state_transition")
      .where(sql<string>`payload ->> '$.to'`, "in", ["completed", "failed", "cancelled"])
      .orderBy("seq", "desc");
    if (limit !== undefined) query = query.limit(limit);
    return this.#all(query, CODECS.journal);
  }

  getJob(id: string): Promise<JobRecord | undefined> {
    return this.#first(this.#db.selectFrom("job").selectAll().where("id", "=", id), CODECS.job);
  }

  listJobs(filter: JobFilter = {}): Promise<readonly JobRecord[]> {
    let query = this.#db
      .selectFrom("job")
      .selectAll()
      .orderBy("seq", filter.descending === true ? "desc" : "asc");
    const conditions = [
      ["composition_id", filter.compositionId],
      ["node_id", filter.nodeId],
      ["capability_instance_id", filter.capabilityInstanceId],
      ["run_id", filter.runId],
    ] as const;
    for (const [column, value] of conditions) {
      if (value !== undefined) query = query.where(column, "=", value);
    }
    if (filter.status !== undefined) query = query.where("status", "in", [filter.status].flat());
    if (filter.limit !== undefined) query = query.limit(filter.limit);
    return this.#all(query, CODECS.job);
  }

  unfinishedJobs(): Promise<readonly JobRecord[]> {
    const query = this.#db
      .selectFrom("job")
      .selectAll()
      // Written out, not bound: only so does SQLite see that the partial index covers it.
      .where(sql<boolean>`status in ('pending', 'running')`)
      .orderBy("seq");
    return this.#all(query, CODECS.job);
  }

  getComposition(id: string): Promise<CompositionRecord | undefined> {
    const query = this.#db.selectFrom("composition_run").selectAll().where("id", "=", id);
    return this.#first(query, CODECS.composition);
  }

  unfinishedCompositions(): Promise<readonly CompositionRecord[]> {
    const query = this.#db
      .selectFrom("composition_run")
      .selectAll()
      .where(sql<boolean>`status = 'running'`)
      .orderBy("seq");
    return this.#all(query, CODECS.composition);
  }

  listCompositions(filter: CompositionFilter = {}): Promise<readonly CompositionRecord[]> {
    let query = this.#db
      .selectFrom("composition_run")
      .selectAll()
      .orderBy("seq", filter.descending === true ? "desc" : "asc");
    if (filter.status !== undefined) query = query.where("status", "in", [filter.status].flat());
    if (filter.limit !== undefined) query = query.limit(filter.limit);
    return this.#all(query, CODECS.composition);
  }

  nodeRuns(compositionId: string): Promise<readonly NodeRecord[]> {
    const query = this.#db
      .selectFrom("node_run")
      .selectAll()
      .where("composition_id", "=", compositionId)
      .orderBy("node_id")
      .orderBy("item_index");
    return this.#all(query, CODECS.node);
  }

  forEachItems(compositionId: string): Promise<readonly ForEachItems[]> {
    const query = this.#db
      .selectFrom("for_each_items")
      .selectAll()
      .where("composition_id", "=", compositionId);
    return this.#all(query, CODECS.items);
  }

  nodesByHash(hash: string): Promise<readonly NodeRecord[]> {
    const query = this.#db
      .selectFrom("node_run")
      .selectAll()
      .where(sql<number>`instr(provenance, ${JSON.stringify(hash)})`, ">", 0);
    return this.#all(query, CODECS.node);
  }

  async namedHashes(endedSince: Date | null): Promise<ReadonlySet<string>> {
    const since = endedSince?.toISOString() ?? "9999";
    const named = new Set<string>();
    await this.#guard(async () => {
      for (const query of namingQueries(this.#db, since)) {
        for await (const row of query.stream()) addHashes(row, named);
      }
    });
    return named;
  }

  getProfile(key: string): Promise<ProfileRecord | undefined> {
    const query = this.#db.selectFrom("profile").selectAll().where("key", "=", key);
    return this.#first(query, CODECS.profile);
  }

  listProfiles(capability?: string): Promise<readonly ProfileRecord[]> {
    let query = this.#db.selectFrom("profile").selectAll().orderBy("key");
    if (capability !== undefined) query = query.where("capability", "=", capability);
    return this.#all(query, CODECS.profile);
  }

  getInstanceConfig(instanceId: string): Promise<InstanceConfigRecord | undefined> {
    const query = this.#db
      .selectFrom("instance_config")
      .selectAll()
      .where("instance_id", "=", instanceId);
    return this.#first(query, CODECS.config);
  }

  listInstanceConfigs(): Promise<readonly InstanceConfigRecord[]> {
    const query = this.#db.selectFrom("instance_config").selectAll().orderBy("instance_id");
    return this.#all(query, CODECS.config);
  }

  cacheEntry(key: string): Promise<CacheEntry | undefined> {
    const query = this.#db.selectFrom("result_cache").selectAll().where("key", "=", key);
    return this.#first(query, CODECS.cache);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db.destroy();
    // Kysely closes only what it has used.
    this.#connection.close();
  }

  async #all<Row>(query: Runnable, codec: TableCodec<Row>): Promise<readonly Row[]> {
    return await this.#guard(async () => {
      const rows = await query.execute();
      return rows.map((row) => codec.decode(row));
    });
  }

  async #first<Row>(query: Runnable, codec: TableCodec<Row>): Promise<Row | undefined> {
    const [row] = await this.#all(query, codec);
    return row;
  }

  async #guard<Result>(read: () => Promise<Result>): Promise<Result> {
    try {
      return await read();
    } catch (error) {
      throw nameDamage(error, this.#path);
    }
  }
}

/** Rows that name content which is needed still, with the columns that do. */
function namingQueries(
  db: Kysely<JournalSchema>,
  since: string,
): readonly SelectQueryBuilder<JournalSchema, keyof JournalSchema, Record<string, unknown>>[] {
  const runs = db
    .selectFrom("composition_run")
    .select("id")
    .where((eb) => eb.or([eb("status", "=", "running"), eb("completed_at", ">=", since)]));
  return [
    db
      .selectFrom("job")
      .select(["kwargs", "control", "result", "result_file"])
      .where((eb) =>
        eb.or([eb("status", "in", ["pending", "running"]), eb("completed_at", ">=", since)]),
      ),
    // Members of a run that goes on are over and needed.
    db
      .selectFrom("job")
      .select(["kwargs", "result", "result_file"])
      .where("composition_id", "in", runs),
    db.selectFrom("composition_run").select("spec").where("id", "in", runs),
    db
      .selectFrom("node_run")
      .select(["result", "result_file", "provenance"])
      .where("composition_id", "in", runs),
    db
      .selectFrom("for_each_items")
      .select(["items", "items_file"])
      .where("composition_id", "in", runs),
    db.selectFrom("instance_config").select("config"),
  ];
}

function addHashes(row: Readonly<Record<string, unknown>>, into: Set<string>): void {
  for (const text of Object.values(row)) {
    if (typeof text !== "string") continue;
    for (const hash of hashesIn(text)) into.add(hash);
  }
}

/** Bare ones too: a path into the adopted files has its hash without the prefix. */
export function* hashesIn(text: string): Generator<string> {
  for (const [hex] of text.matchAll(/[0-9a-f]{64}/gu)) yield `sha256:${hex}`;
}
