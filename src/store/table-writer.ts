import type { Database, Statement } from "better-sqlite3";
import type { Kysely } from "kysely";
import { isRecord } from "../util/record.ts";
import type { FieldKind, SqlValue, TableCodec } from "./codecs.ts";

/** Any table, any column: the writer's shapes come from the codecs, not from Kysely's types. */
export type LooseSchema = Record<string, Record<string, SqlValue>>;

/** One statement with its values; running it needs no more thought. */
export interface PreparedWrite {
  readonly statement: Statement<[SqlValue[]]>;
  /** A function where they are found out when it is run. */
  readonly parameters: SqlValue[] | (() => SqlValue[]);
  /** The table where the row of the last parameter must be; null where changing none is no fault. */
  readonly expects: string | null;
  /** Of several with the same name in one commit only the last need be run; null where all must. */
  readonly replaces: string | null;
}

interface Column {
  readonly field: string;
  readonly name: string;
  readonly kind: FieldKind;
}

interface Update {
  readonly columns: readonly Column[];
  readonly statement: Statement<[SqlValue[]]>;
}

/**
 * Prepared statements of one table.
 *
 * Kysely compiles each shape once; building SQL for every row would cost half the rate. A row is
 * encoded when its unit is staged, so later changes of the caller's objects cannot reach the
 * database.
 */
export class TableWriter {
  readonly #sqlite: Database;
  readonly #db: Kysely<LooseSchema>;
  readonly #table: string;
  readonly #key: readonly string[];
  /** What an insert gives; SQLite numbers `seq` itself. */
  readonly #columns: readonly Column[];
  readonly #statements = new Map<string, Statement<[SqlValue[]]>>();
  readonly #updates = new Map<string, Update>();

  /** `key`: columns that identify a row. */
  constructor(
    sqlite: Database,
    db: Kysely<LooseSchema>,
    codec: TableCodec<unknown>,
    key: readonly string[],
  ) {
    this.#sqlite = sqlite;
    this.#db = db;
    this.#table = codec.table;
    this.#key = key;
    this.#columns = [...codec.columns]
      .filter(([field]) => field !== "seq")
      .map(([field, column]) => ({ field, ...column }));
  }

  /** A member that is absent is stored as its default, or NULL. */
  insert(record: object, defaults: Readonly<Record<string, unknown>> = {}): PreparedWrite {
    const compile = (): string =>
      this.#db.insertInto(this.#table).values(this.#placeholders()).compile().sql;
    return this.#prepared("insert", compile, encode(record, this.#columns, defaults));
  }

  /**
   * As {@link put}, for a row of which only the last version of a commit matters. `record` must not
   * change any more.
   */
  putLatest(record: object, id: string): PreparedWrite {
    const { statement } = this.#prepared("put", () => this.#compilePut(), []);
    const parameters = (): SqlValue[] => encode(record, this.#columns);
    return { statement, parameters, expects: null, replaces: `${this.#table} ${id}` };
  }

  /** Inserts, or replaces the row with the same key. */
  put(record: object): PreparedWrite {
    return this.#prepared("put", () => this.#compilePut(), encode(record, this.#columns));
  }

  #compilePut(): string {
    const row = this.#placeholders();
    const rest = Object.keys(row).filter((column) => !this.#key.includes(column));
    return this.#db
      .insertInto(this.#table)
      .values(row)
      .onConflict((conflict) =>
        conflict
          .columns([...this.#key])
          .doUpdateSet((eb) =>
            Object.fromEntries(rest.map((column) => [column, eb.ref(`excluded.${column}`)])),
          ),
      )
      .compile().sql;
  }

  /** Changes the given fields of the row whose only key column has this value. */
  update(id: string, changes: object): PreparedWrite {
    const { columns, statement } = this.#updateOf(id, changes);
    const parameters = encode(changes, columns);
    parameters.push(id);
    return { statement, parameters, expects: this.#table, replaces: null };
  }

  delete(id: string): PreparedWrite {
    const [key = "id"] = this.#key;
    const compile = (): string =>
      this.#db.deleteFrom(this.#table).where(key, "=", id).compile().sql;
    return this.#prepared("delete", compile, [id]);
  }

  /** The statement for the fields that `changes` has, compiled once for each set of them. */
  #updateOf(id: string, changes: object): Update {
    if (!isRecord(changes)) throw new TypeError("Changes must be an object");
    let shape = "";
    for (const field in changes) if (changes[field] !== undefined) shape += `${field},`;
    const known = this.#updates.get(shape);
    if (known !== undefined) return known;
    const columns = this.#columns.filter(({ field }) => changes[field] !== undefined);
    if (columns.length === 0)
      throw new TypeError(`an update of ${this.#table} "${id}" changes nothing`);
    const [key = "id"] = this.#key;
    const row = Object.fromEntries(columns.flatMap(namesOf).map((name) => [name, null]));
    const { sql } = this.#db.updateTable(this.#table).set(row).where(key, "=", id).compile();
    const update = { columns, statement: this.#sqlite.prepare<[SqlValue[]]>(sql) };
    this.#updates.set(shape, update);
    return update;
  }

  #prepared(shape: string, compile: () => string, parameters: SqlValue[]): PreparedWrite {
    let statement = this.#statements.get(shape);
    if (statement === undefined) {
      statement = this.#sqlite.prepare<[SqlValue[]]>(compile());
      this.#statements.set(shape, statement);
    }
    return { statement, parameters, expects: null, replaces: null };
  }

  /** A row that only gives Kysely the columns; every value becomes a parameter. */
  #placeholders(): Record<string, SqlValue> {
    return Object.fromEntries(this.#columns.flatMap(namesOf).map((name) => [name, null]));
  }
}

function namesOf({ name, kind }: Column): readonly string[] {
  return kind === "stored" ? [name, `${name}_file`] : [name];
}

/** Values in the order of the columns' names. */
function encode(
  record: object,
  columns: readonly Column[],
  defaults: Readonly<Record<string, unknown>> = {},
): SqlValue[] {
  if (!isRecord(record)) throw new TypeError("A row must be an object");
  const values: SqlValue[] = [];
  for (const { field, kind } of columns) {
    const value = record[field] ?? defaults[field] ?? null;
    if (kind === "plain" || kind === "flag") {
      values.push(toSql(value, field));
    } else if (kind === "json") {
      values.push(value === null ? null : JSON.stringify(value));
    } else {
      values.push(storedMember(value, "json"), storedMember(value, "hash"));
    }
  }
  return values;
}

function storedMember(value: unknown, member: "json" | "hash"): SqlValue {
  const content = isRecord(value) ? value[member] : undefined;
  return typeof content === "string" ? content : null;
}

function toSql(value: unknown, field: string): SqlValue {
  if (value === null || typeof value === "string" || typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  throw new TypeError(`${field} has a value that no column can hold: ${typeof value}`);
}
