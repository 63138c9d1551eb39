import type { Database, Statement } from "better-sqlite3";
import type { Kysely } from "kysely";
import { isRecord } from "../util/record.ts";
import type { SqlRow, SqlValue, TableCodec } from "./codecs.ts";

/** Any table, any column: the writer's shapes come from the codecs, not from Kysely's types. */
export type LooseSchema = Record<string, Record<string, SqlValue>>;

/** One statement with its values; running it needs no more thought. */
export interface PreparedWrite {
  readonly statement: Statement<[SqlValue[]]>;
  readonly parameters: SqlValue[];
  /** What is missing when the statement changes no row; null where that is no fault. */
  readonly expects: string | null;
}

/**
 * Prepared statements of one table.
 *
 * Kysely compiles each shape once; building SQL for every row would cost half the rate. A unit is
 * encoded when it is staged, so later changes of the caller's objects cannot reach the database.
 */
export class TableWriter {
  readonly #sqlite: Database;
  readonly #db: Kysely<LooseSchema>;
  readonly #codec: TableCodec<unknown>;
  readonly #key: readonly string[];
  readonly #statements = new Map<string, Statement<[SqlValue[]]>>();

  /** `key`: columns that identify a row. */
  constructor(
    sqlite: Database,
    db: Kysely<LooseSchema>,
    codec: TableCodec<unknown>,
    key: readonly string[],
  ) {
    this.#sqlite = sqlite;
    this.#db = db;
    this.#codec = codec;
    this.#key = key;
  }

  insert(record: object): PreparedWrite {
    const row = this.#encode(record);
    const compile = (): string => this.#db.insertInto(this.#codec.table).values(row).compile().sql;
    return this.#prepared(`insert ${Object.keys(row).join()}`, compile, Object.values(row));
  }

  /** Inserts, or replaces the row with the same key. */
  put(record: object): PreparedWrite {
    const row = this.#encode(record);
    const rest = Object.keys(row).filter((column) => !this.#key.includes(column));
    const compile = (): string =>
      this.#db
        .insertInto(this.#codec.table)
        .values(row)
        .onConflict((conflict) =>
          conflict
            .columns([...this.#key])
            .doUpdateSet((eb) =>
              Object.fromEntries(rest.map((column) => [column, eb.ref(`excluded.${column}`)])),
            ),
        )
        .compile().sql;
    return this.#prepared(`put ${Object.keys(row).join()}`, compile, Object.values(row));
  }

  /** Changes the given fields of the row whose only key column has this value. */
  update(id: string, changes: object): PreparedWrite {
    const row = this.#encode(changes);
    const [key = "id"] = this.#key;
    const compile = (): string =>
      this.#db.updateTable(this.#codec.table).set(row).where(key, "=", id).compile().sql;
    const shape = `update ${Object.keys(row).join()}`;
    const write = this.#prepared(shape, compile, [...Object.values(row), id]);
    return { ...write, expects: `${this.#codec.table} "${id}" does not exist` };
  }

  delete(id: string): PreparedWrite {
    const [key = "id"] = this.#key;
    const compile = (): string =>
      this.#db.deleteFrom(this.#codec.table).where(key, "=", id).compile().sql;
    return this.#prepared("delete", compile, [id]);
  }

  #prepared(shape: string, compile: () => string, parameters: SqlValue[]): PreparedWrite {
    let statement = this.#statements.get(shape);
    if (statement === undefined) {
      statement = this.#sqlite.prepare<[SqlValue[]]>(compile());
      this.#statements.set(shape, statement);
    }
    return { statement, parameters, expects: null };
  }

  /** Columns in the codec's order, so that equal shapes share one statement. */
  #encode(record: object): SqlRow {
    if (!isRecord(record)) throw new TypeError(`${this.#codec.table}: not a record`);
    const row: Record<string, SqlValue> = {};
    for (const [field, { name, kind }] of this.#codec.columns) {
      const value = record[field];
      if (value === undefined) continue;
      if (kind === "stored") {
        row[name] = storedMember(value, "json");
        row[`${name}_file`] = storedMember(value, "hash");
      } else {
        row[name] = kind === "json" ? toJson(value) : toSql(value, field);
      }
    }
    return row;
  }
}

function storedMember(value: unknown, member: "json" | "hash"): SqlValue {
  const content = isRecord(value) ? value[member] : undefined;
  return typeof content === "string" ? content : null;
}

function toJson(value: unknown): SqlValue {
  return value === null ? null : JSON.stringify(value);
}

function toSql(value: unknown, field: string): SqlValue {
  if (value === null || typeof value === "string" || typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  throw new TypeError(`${field} has a value that no column can hold: ${typeof value}`);
}
