import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { newestStarts, openJournalDatabase } from "../../../src/store/index.ts";

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-store-"));
  path = join(folder, "journal.db");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const started = (capabilityName: string, version: number) => ({
  op: "journal.append" as const,
  event: { eventType: "worker_ready", capabilityName, payload: { version } },
});

describe("the newest starts of workers", () => {
  test("are none where there is no journal", async () => {
    expect(await newestStarts(path, 10)).toEqual([]);
  });

  test("come newest first, at most so many, and nothing else with them", async () => {
    await using store = await openJournalDatabase(path);
    const other = { eventType: "state_transition", capabilityName: "merger" };
    await store.stage([
      started("merger", 1),
      { op: "journal.append", event: other },
      started("sandbox", 1),
      started("merger", 2),
    ]);
    expect(await newestStarts(path, 2)).toMatchObject([
      { capabilityName: "merger", payload: { version: 2 } },
      { capabilityName: "sandbox", payload: { version: 1 } },
    ]);
  });

  test("are found without a look at the rest of the journal", async () => {
    await using _ = await openJournalDatabase(path);
    using sqlite = new Plan(path);
    expect(
      sqlite.of("select seq from journal where event_type = 'worker_ready' order by seq desc"),
    ).toContain("journal_start");
  });

  test("name the file of a row that no host has written", async () => {
    const store = await openJournalDatabase(path);
    await store.stage([started("merger", 1)]);
    await store[Symbol.asyncDispose]();
    const sqlite = new BetterSqlite3(path);
    sqlite.exec("drop trigger journal_no_update; update journal set payload = 'torn'");
    sqlite.close();
    await expect(newestStarts(path, 10)).rejects.toMatchObject({
      code: "DATABASE_CORRUPT",
      message: expect.stringContaining(path) as unknown,
    });
  });
});

/** How SQLite would run a query. */
class Plan implements Disposable {
  readonly #sqlite: BetterSqlite3.Database;

  constructor(file: string) {
    this.#sqlite = new BetterSqlite3(file, { readonly: true });
  }

  of(query: string): string {
    return JSON.stringify(this.#sqlite.prepare(`explain query plan ${query}`).all());
  }

  [Symbol.dispose](): void {
    this.#sqlite.close();
  }
}
