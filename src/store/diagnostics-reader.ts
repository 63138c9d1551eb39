import { existsSync } from "node:fs";
import BetterSqlite3 from "better-sqlite3";
import { Kysely, SqliteDialect } from "kysely";
import {
  RESOURCES_LOGGER,
  type ChunkFilter,
  type RecordFilter,
  type StoredChunk,
  type StoredRecord,
} from "./diagnostics-records.ts";
import { nameDamage } from "./sqlite-fault.ts";

interface DiagnosticsSchema {
  records: {
    seq: number;
    ts: string;
    worker_session_id: string | null;
    job_id: string | null;
    level: string;
    logger_name: string;
    message: string;
    exc_text: string | null;
  };
  stream_chunks: {
    seq: number;
    ts: string;
    worker_session_id: string | null;
    stream: string;
    content: string;
  };
}

/**
 * Reads of `diagnostics.db`, beside the thread that writes it or without one.
 *
 * A damaged file gives `DATABASE_CORRUPT`.
 */
export class DiagnosticsReader implements AsyncDisposable {
  readonly #db: Kysely<DiagnosticsSchema>;
  readonly #path: string;

  private constructor(db: Kysely<DiagnosticsSchema>, path: string) {
    this.#db = db;
    this.#path = path;
  }

  /** Undefined where nothing was ever logged. */
  static open(path: string): DiagnosticsReader | undefined {
    if (!existsSync(path)) return undefined;
    const database = new BetterSqlite3(path, { readonly: true, fileMustExist: true });
    return new DiagnosticsReader(new Kysely({ dialect: new SqliteDialect({ database }) }), path);
  }

  /** Structured records in order of arrival. */
  async queryRecords(filter: RecordFilter = {}): Promise<readonly StoredRecord[]> {
    let query = this.#db
      .selectFrom("records")
      .select([
        "seq",
        "ts",
        "worker_session_id as workerSessionId",
        "job_id as jobId",
        "level",
        "logger_name as loggerName",
        "message",
        "exc_text as excText",
      ])
      .orderBy("seq", filter.descending === true ? "desc" : "asc");
    const { jobId, workerSessionId, level, afterSeq, limit } = filter;
    query =
      filter.loggerName === undefined
        ? query.where("logger_name", "!=", RESOURCES_LOGGER)
        : query.where("logger_name", "=", filter.loggerName);
    if (filter.sinceTs !== undefined) query = query.where("ts", ">=", filter.sinceTs);
    if (filter.untilTs !== undefined) query = query.where("ts", "<=", filter.untilTs);
    if (jobId !== undefined) query = query.where("job_id", "=", jobId);
    if (workerSessionId !== undefined)
      query = query.where("worker_session_id", "=", workerSessionId);
    if (level !== undefined) query = query.where("level", "=", level);
    if (afterSeq !== undefined) query = query.where("seq", ">", afterSeq);
    if (limit !== undefined) query = query.limit(limit);
    return this.#run(() => query.execute());
  }

  /** Raw output lines in order of arrival. */
  async queryChunks(filter: ChunkFilter = {}): Promise<readonly StoredChunk[]> {
    let query = this.#db
      .selectFrom("stream_chunks")
      .select(["seq", "ts", "worker_session_id as workerSessionId", "stream", "content"])
      .orderBy("seq", filter.descending === true ? "desc" : "asc");
    const { workerSessionId, afterSeq, limit } = filter;
    if (workerSessionId !== undefined)
      query = query.where("worker_session_id", "=", workerSessionId);
    if (afterSeq !== undefined) query = query.where("seq", ">", afterSeq);
    if (limit !== undefined) query = query.limit(limit);
    return this.#run(() => query.execute());
  }

  async #run<Row>(read: () => Promise<Row[]>): Promise<readonly Row[]> {
    try {
      return await read();
    } catch (error) {
      throw nameDamage(error, this.#path);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db.destroy();
  }
}
