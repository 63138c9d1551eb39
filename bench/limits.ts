/**
 * What a machine can do at most: the rows that the product wrote, in the same commits, through bare
 * prepared statements of better-sqlite3 and nothing else.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import BetterSqlite3, { type Statement } from "better-sqlite3";
import { openJournalDatabase, type StorePort, type StoreWrite } from "../src/store/index.ts";
import { type Cost, costOf } from "./report.ts";

export type Commits = (readonly StoreWrite[])[][];
type Value = string | number | null;

interface Bare {
  readonly sql: string;
  readonly values: readonly Value[];
}

/** Notes every unit in the commit that takes it: what is staged in one turn is committed together. */
export function recordUnits(store: StorePort, into: Commits): StorePort {
  let open: (readonly StoreWrite[])[] | null = null;
  return new Proxy(store, {
    get(target, key) {
      if (key === "stage") {
        return (unit: readonly StoreWrite[]) => {
          if (open === null) {
            open = [];
            into.push(open);
            setImmediate(() => {
              open = null;
            });
          }
          open.push(unit);
          return target.stage(unit);
        };
      }
      const value = Reflect.get(target, key, target) as unknown;
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

/** What the same rows and commits cost without the product. */
export async function replay(commits: Commits): Promise<Cost> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-limit-"));
  const path = join(folder, "journal.db");
  // The schema is ours; what is measured is the bare statements.
  await (await openJournalDatabase(path))[Symbol.asyncDispose]();
  const sqlite = new BetterSqlite3(path);
  sqlite.pragma("synchronous = FULL");
  sqlite.pragma("cache_size = -16000");
  const prepared = new Map<string, Statement>();
  const begin = sqlite.prepare("BEGIN IMMEDIATE");
  const commit = sqlite.prepare("COMMIT");
  const run = ({ sql, values }: Bare): void => {
    let statement = prepared.get(sql);
    if (statement === undefined) {
      statement = sqlite.prepare(sql);
      prepared.set(sql, statement);
    }
    statement.run(...values);
  };
  try {
    // Made beforehand: a limit does not think about its rows.
    const bare = commits.map((units) => latestOnly(units.flat()).map(bareOf));
    return await costOf(() => {
      for (const rows of bare) {
        begin.run();
        for (const row of rows) run(row);
        commit.run();
      }
    });
  } finally {
    sqlite.close();
    await rm(folder, { recursive: true, force: true });
  }
}

/** Of a profile that is written several times in one commit, the store writes the last. */
function latestOnly(writes: readonly StoreWrite[]): readonly StoreWrite[] {
  const last = new Map<string, StoreWrite>();
  for (const write of writes) if (write.op === "profile.put") last.set(write.profile.key, write);
  return writes.filter(
    (write) => write.op !== "profile.put" || last.get(write.profile.key) === write,
  );
}

const TABLES = {
  job: "job",
  composition: "composition_run",
  node: "node_run",
  items: "for_each_items",
  profile: "profile",
  config: "instance_config",
  cache: "result_cache",
} as const;

// oxlint-disable-next-line eslint/complexity, typescript/consistent-return -- one case for each operation, checked to be all of them
function bareOf(write: StoreWrite): Bare {
  switch (write.op) {
    case "journal.append": {
      const event = { eventId: crypto.randomUUID(), ts: new Date().toISOString(), ...write.event };
      return insert("journal", { ...event, workerReported: 0 }, "insert");
    }
    case "job.insert":
      return insert("job", { maxRetries: 0, attempt: 0, retryCount: 0, ...write.job }, "insert");
    case "composition.insert":
      return insert(TABLES.composition, write.composition, "insert");
    case "job.update":
    case "composition.update":
      return update(
        write.op === "job.update" ? "job" : TABLES.composition,
        write.id,
        write.changes,
      );
    case "node.put":
      return insert(TABLES.node, write.node, "insert or replace");
    case "items.put":
      return insert(TABLES.items, write.items, "insert or replace");
    case "profile.put":
      return insert(TABLES.profile, write.profile, "insert or replace");
    case "config.put":
      return insert(TABLES.config, write.config, "insert or replace");
    case "cache.put":
      return insert(TABLES.cache, write.entry, "insert or replace");
    case "profile.delete":
    case "cache.delete":
      return {
        sql: `delete from ${write.op === "profile.delete" ? "profile" : "result_cache"} where key = ?`,
        values: [write.key],
      };
    case "config.delete":
      return {
        sql: "delete from instance_config where instance_id = ?",
        values: [write.instanceId],
      };
  }
}

function insert(table: string, record: object, verb: string): Bare {
  const cells = cellsOf(record);
  const names = cells.map(([name]) => name);
  return {
    sql: `${verb} into ${table} (${names.join()}) values (${names.map(() => "?").join()})`,
    values: cells.map(([, value]) => value),
  };
}

function update(table: string, id: string, changes: object): Bare {
  const cells = cellsOf(changes);
  return {
    sql: `update ${table} set ${cells.map(([name]) => `${name} = ?`).join()} where id = ?`,
    values: [...cells.map(([, value]) => value), id],
  };
}

function cellsOf(record: object): (readonly [string, Value])[] {
  return Object.entries(record).flatMap(([field, value]: [string, unknown]) => {
    if (value === undefined || value === null) return [];
    const name = field.replaceAll(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`);
    if (typeof value === "string" || typeof value === "number") return [[name, value] as const];
    if (typeof value === "boolean") return [[name, value ? 1 : 0] as const];
    const stored = value as { json?: unknown; hash?: unknown };
    if (typeof stored.json === "string") return [[name, stored.json] as const];
    if (typeof stored.hash === "string") return [[`${name}_file`, stored.hash] as const];
    return [[name, JSON.stringify(value)] as const];
  });
}
