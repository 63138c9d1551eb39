import type { Database, Statement } from "better-sqlite3";
import { z } from "cjm-substrate/worker";
import {
  type Decision,
  decisionSchema,
  type Standing,
  type StoredRecord,
  storedRecordSchema,
} from "./record.ts";

/** A column that holds JSON. */
const json = z.string().transform((text): unknown => JSON.parse(text));

const rowSchema = z
  .looseObject({
    files: json,
    parent_ids: json,
    is_archived: z.int().transform((value) => value === 1),
  })
  .pipe(storedRecordSchema);

const decisionRowSchema = z.looseObject({ evidence: json }).pipe(decisionSchema);

const COLUMNS = Object.keys(storedRecordSchema.shape);
const VALUES = COLUMNS.map((column) => `@${column}`).join(", ");

/** A decision and whom it is about. */
export interface NewDecision extends Decision {
  readonly adapter_id: string;
}

/** Every statement of the registry, on one open database. */
export class Rows {
  readonly #database: Database;
  readonly #byId: Statement;
  readonly #byHash: Statement;
  readonly #byJob: Statement;
  readonly #insert: Statement;
  readonly #decide: Statement;

  constructor(database: Database) {
    this.#database = database;
    this.#byId = database.prepare("select * from adapter where id = ?");
    this.#byHash = database.prepare("select * from adapter where file_hash = ?");
    this.#byJob = database.prepare(
      `select adapter.* from adapter join decision on adapter_id = adapter.id
       where job_id = ? and kind = ?`,
    );
    this.#insert = database.prepare(
      `insert into adapter (${COLUMNS.join(", ")}) values (${VALUES})`,
    );
    this.#decide = database.prepare(
      `insert into decision (ts, adapter_id, kind, reason, evidence, job_id)
       values (@ts, @adapter_id, @kind, @reason, @evidence, @job_id)`,
    );
  }

  byId(id: string): StoredRecord | undefined {
    return one(this.#byId.get(id));
  }

  byHash(hash: string): StoredRecord | undefined {
    return one(this.#byHash.get(hash));
  }

  /** What a job did before, if it is run again. */
  byJob(jobId: string, kind: Decision["kind"]): StoredRecord | undefined {
    return one(this.#byJob.get(jobId, kind));
  }

  /** Every record, the oldest first. */
  all(): StoredRecord[] {
    const rows = this.#database.prepare("select * from adapter order by created_at, rowid").all();
    return rows.map((row) => rowSchema.parse(row));
  }

  decisions(id: string): Decision[] {
    const rows = this.#database
      .prepare("select * from decision where adapter_id = ? order by seq")
      .all(id);
    return rows.map((row) => decisionRowSchema.parse(row));
  }

  /** The record and what was decided about it, and no more a copy under way: together or not at all. */
  add(record: StoredRecord, decisions: readonly NewDecision[]): void {
    this.#database.transaction(() => {
      this.#insert.run({
        ...record,
        files: JSON.stringify(record.files),
        parent_ids: JSON.stringify(record.parent_ids),
        is_archived: record.is_archived ? 1 : 0,
      });
      for (const decision of decisions) this.#append(decision);
      this.forget(record.file_hash);
    })();
  }

  /** Changes where an adapter stands, and says why. */
  decide(decision: NewDecision, change: Partial<Standing>): void {
    const columns = Object.keys(change);
    this.#database.transaction(() => {
      const set = columns.map((column) => `${column} = @${column}`).join(", ");
      const { is_archived: isArchived, ...rest } = change;
      const archived = isArchived === undefined ? {} : { is_archived: isArchived ? 1 : 0 };
      this.#database
        .prepare(`update adapter set ${set} where id = @id`)
        .run({ ...rest, ...archived, id: decision.adapter_id });
      this.#append(decision);
    })();
  }

  /** Notes that this content is about to be copied. */
  expect(hash: string, ts: string): void {
    this.#database.prepare("insert or ignore into incoming values (?, ?)").run(hash, ts);
  }

  forget(hash: string): void {
    this.#database.prepare("delete from incoming where file_hash = ?").run(hash);
  }

  /** Contents whose copy was begun and has no record. */
  expected(): string[] {
    const rows = this.#database.prepare("select file_hash from incoming").pluck().all();
    return z.array(z.string()).parse(rows);
  }

  #append(decision: NewDecision): void {
    this.#decide.run({ ...decision, evidence: JSON.stringify(decision.evidence) });
  }
}

function one(row: unknown): StoredRecord | undefined {
  return row === undefined ? undefined : rowSchema.parse(row);
}
