import { existsSync } from "node:fs";
import { join } from "node:path";
import BetterSqlite3, { type Database } from "better-sqlite3";
import { z } from "zod";
import { CjmError } from "../../errors/index.ts";

/** What marks a registry's database; the worker `adapter-registry` writes it. */
const APPLICATION_ID = 0x43_4a_4d_52;
const SCHEMA_VERSION = 1;

const json = z.string().transform((text): unknown => JSON.parse(text));

const adapterSchema = z.object({
  id: z.string(),
  version: z.int(),
  task_type: z.string(),
  base_model_id: z.string(),
  rank: z.int(),
  created_at: z.string(),
  file_hash: z.string(),
  file_size_bytes: z.int(),
  files: json.pipe(z.array(z.object({ name: z.string(), size: z.int(), sha256: z.string() }))),
  source: z.string(),
  method: z.string().nullable(),
  session_id: z.string().nullable(),
  agent_id: z.string().nullable(),
  parent_ids: json.pipe(z.array(z.string())),
  generation: z.int(),
  training_task_hash: z.string().nullable(),
  pass_rate: z.number().nullable(),
  fitness_score: z.number().nullable(),
  is_archived: z.int().transform((value) => value === 1),
  level: z.string(),
  domain: z.string().nullable(),
});
/** One adapter of a registry, in the words of its database. */
export type StoredAdapter = z.output<typeof adapterSchema> & { readonly file_path: string };

const decisionSchema = z.object({
  ts: z.string(),
  kind: z.string(),
  reason: z.string(),
  evidence: json.pipe(z.record(z.string(), z.unknown())),
  job_id: z.string().nullable(),
});
export type StoredDecision = z.output<typeof decisionSchema>;

/** Reads a registry of adapters beside the worker that writes it, or without one. */
export class RegistryReader implements Disposable {
  readonly #database: Database;
  readonly #folder: string;

  private constructor(database: Database, folder: string) {
    this.#database = database;
    this.#folder = folder;
  }

  /**
   * Undefined where nothing was ever stored.
   *
   * @throws {CjmError} `DATABASE_CORRUPT`; `DATABASE_NEWER`.
   */
  static open(folder: string): RegistryReader | undefined {
    const path = join(folder, "registry.db");
    if (!existsSync(path)) return undefined;
    let database: Database | undefined;
    try {
      database = new BetterSqlite3(path, { readonly: true, fileMustExist: true });
      const version = Number(database.pragma("user_version", { simple: true }));
      if (version > SCHEMA_VERSION) {
        throw new CjmError("DATABASE_NEWER", `${path} was written by a newer adapter-registry`);
      }
      if (database.pragma("application_id", { simple: true }) !== APPLICATION_ID) {
        throw new CjmError("DATABASE_CORRUPT", `${path} is not a registry of adapters`);
      }
      return new RegistryReader(database, folder);
    } catch (cause) {
      database?.close();
      if (cause instanceof CjmError) throw cause;
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new CjmError("DATABASE_CORRUPT", `${path} cannot be read: ${reason}`, { cause });
    }
  }

  /** Every adapter, the oldest first. */
  adapters(): StoredAdapter[] {
    const rows = this.#database.prepare("select * from adapter order by created_at, rowid").all();
    return rows.map((row) => {
      const adapter = adapterSchema.parse(row);
      const hex = adapter.file_hash.slice("sha256:".length);
      return { ...adapter, file_path: join(this.#folder, "adapters", hex.slice(0, 2), hex) };
    });
  }

  /** What was decided about an adapter, in order. */
  decisions(id: string): StoredDecision[] {
    const rows = this.#database
      .prepare("select * from decision where adapter_id = ? order by seq")
      .all(id);
    return rows.map((row) => decisionSchema.parse(row));
  }

  [Symbol.dispose](): void {
    this.#database.close();
  }
}
