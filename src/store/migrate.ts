import type { Database } from "better-sqlite3";
import { Kysely, SqliteDialect } from "kysely";
import { Migrator, type Migration } from "kysely/migration";
import type { MigrationName } from "./journal-file.ts";
import { initial } from "./migrations/0001-initial.ts";

/** Static on purpose: a compiled build has no folder of migrations to scan. */
const MIGRATIONS: Readonly<Record<MigrationName, Migration>> = { "0001-initial": initial };

/** Brings a journal to the newest schema. */
export async function migrateToLatest(sqlite: Database): Promise<void> {
  const migrator = new Migrator({
    db: new Kysely<unknown>({ dialect: new SqliteDialect({ database: sqlite }) }),
    provider: { getMigrations: () => Promise.resolve(MIGRATIONS) },
  });
  const { error } = await migrator.migrateToLatest();
  if (error instanceof Error) throw error;
  if (error !== undefined) throw new Error("A migration failed", { cause: error });
}
