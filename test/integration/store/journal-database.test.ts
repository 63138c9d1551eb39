import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  openJournalDatabase,
  openJournalReader,
  WHOLE_NODE,
  type CacheEntry,
  type CompositionRecord,
  type NewJob,
  type NodeRecord,
} from "../../../src/store/index.ts";

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-store-"));
  path = join(folder, "journal.db");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function newJob(id: string, changes: Partial<NewJob> = {}): NewJob {
  return {
    id,
    capabilityInstanceId: "sandbox",
    kwargs: { code: "print(1)" },
    control: {},
    priority: 0,
    status: "pending",
    submittedAt: "2026-01-01T00:00:00.000Z",
    ...changes,
  };
}

const containing = (text: string): unknown => expect.stringContaining(text);

const JOB_ERROR = {
  category: "resource" as const,
  code: "WORKER_OOM",
  message: "out of memory",
  retriable: true,
  original_exc_repr: "OutOfMemory()",
};

describe("a unit", () => {
  test("commits its rows together and answers with the journal rows and their seq", async () => {
    await using store = await openJournalDatabase(path, {
      now: () => new Date("2026-01-02T03:04:05.678Z"),
    });
    const [first, second] = await Promise.all([
      store.stage([
        { op: "job.insert", job: newJob("a") },
        { op: "journal.append", event: { eventType: "job_submitted", jobId: "a", actor: "me" } },
      ]),
      store.stage([
        { op: "job.update", id: "a", changes: { status: "running", attempt: 1 } },
        { op: "journal.append", event: { eventType: "state_transition", jobId: "a" } },
        { op: "journal.append", event: { eventType: "worker_ready", payload: { waitSeconds: 1 } } },
      ]),
    ]);
    expect(first.events.map((event) => event.seq)).toEqual([1]);
    expect(second.events.map((event) => event.seq)).toEqual([2, 3]);
    const committed = await store.queryJournal();
    expect(committed).toEqual([...first.events, ...second.events]);
    expect(committed[0]).toMatchObject({
      ts: "2026-01-02T03:04:05.678Z",
      actor: "me",
      runId: null,
    });
    expect(await store.getJob("a")).toMatchObject({ status: "running", attempt: 1, result: null });
  });

  test("is visible to nobody before its commit", async () => {
    await using store = await openJournalDatabase(path);
    const staged = store.stage([{ op: "job.insert", job: newJob("a") }]);
    expect(await store.getJob("a")).toBeUndefined();
    await staged;
    expect(await store.getJob("a")).toBeDefined();
  });

  test("with a bad row fails alone and leaves nothing, whoever shares its commit", async () => {
    await using store = await openJournalDatabase(path);
    const outcomes = await Promise.allSettled([
      store.stage([{ op: "job.insert", job: newJob("a") }]),
      store.stage([
        { op: "journal.append", event: { eventType: "job_submitted", jobId: "twin" } },
        { op: "job.insert", job: newJob("a") },
      ]),
      store.stage([{ op: "job.update", id: "nobody", changes: { status: "running" } }]),
      store.stage([{ op: "job.insert", job: newJob("b") }]),
    ]);
    expect(outcomes.map((outcome) => outcome.status)).toEqual([
      "fulfilled",
      "rejected",
      "rejected",
      "fulfilled",
    ]);
    expect(outcomes[1]).toMatchObject({ reason: { code: "STORE_REJECTED" } });
    expect(outcomes[2]).toMatchObject({
      reason: { code: "STORE_REJECTED", message: containing('job "nobody"') },
    });
    expect((await store.listJobs()).map((job) => job.id)).toEqual(["a", "b"]);
    expect(await store.countJournal()).toBe(0);
    expect(store.available).toBe(true);
  });

  test("is encoded when it is staged: what the caller changes later is not stored", async () => {
    await using store = await openJournalDatabase(path);
    const kwargs = { code: "before" };
    const staged = store.stage([{ op: "job.insert", job: newJob("a", { kwargs }) }]);
    kwargs.code = "after";
    await staged;
    expect(await store.getJob("a")).toMatchObject({ kwargs: { code: "before" } });
  });

  test("with a value JSON has no form for is refused before anything is staged", async () => {
    await using store = await openJournalDatabase(path);
    const unit = [{ op: "job.insert" as const, job: newJob("a", { kwargs: { big: 1n } }) }];
    await expect(store.stage(unit)).rejects.toMatchObject({ code: "STORE_REJECTED" });
  });

  test("after closing is refused", async () => {
    const store = await openJournalDatabase(path);
    await store[Symbol.asyncDispose]();
    await expect(store.stage([])).rejects.toMatchObject({ code: "JOURNAL_UNAVAILABLE" });
  });

  test("that is staged when the database is closed is committed first", async () => {
    const store = await openJournalDatabase(path);
    const staged = store.stage([{ op: "job.insert", job: newJob("a") }]);
    await store[Symbol.asyncDispose]();
    await staged;
    await using again = await openJournalDatabase(path);
    expect(await again.getJob("a")).toBeDefined();
  });
});

describe("the tables", () => {
  test("give back jobs, compositions, nodes, items, profiles, configs and cache entries as stored", async () => {
    await using store = await openJournalDatabase(path);
    const job = newJob("a", {
      error: JOB_ERROR,
      result: { kind: "file", hash: `sha256:${"0".repeat(64)}` },
      timeoutMs: 1500,
      itemIndex: 2,
      progress: 0.5,
    });
    const composition: CompositionRecord = {
      id: "c",
      name: "grade",
      spec: { nodes: [] },
      status: "running",
      failFast: true,
      priority: 3,
      runId: null,
      actor: "me",
      cancelRequested: false,
      submittedAt: "2026-01-01T00:00:00.000Z",
      completedAt: null,
    };
    const node: NodeRecord = {
      compositionId: "c",
      nodeId: "n",
      itemIndex: WHOLE_NODE,
      state: "completed",
      jobId: "a",
      result: { kind: "inline", json: "[1]" },
      error: null,
      skipCause: null,
      provenance: { codeHash: "sha256:1", outputHashes: { model: "sha256:2" }, upstream: ["m"] },
    };
    const items = {
      compositionId: "c",
      nodeId: "n",
      count: 2,
      items: { kind: "inline" as const, json: "[1,2]" },
    };
    const profile = { key: "k", capability: "inference", body: { peak: 1 }, updatedAt: "t" };
    const config = {
      instanceId: "i",
      capabilityName: "inference",
      config: { model: "m" },
      enabled: false,
      updatedAt: "t",
    };
    const entry: CacheEntry = {
      key: "k",
      capabilityName: "inference",
      compositionId: "c",
      nodeId: "n",
      jobId: null,
      result: { kind: "inline", json: "1" },
      outputs: { model: "sha256:2" },
      createdAt: "t",
    };
    await store.stage([
      { op: "job.insert", job },
      { op: "composition.insert", composition },
      { op: "node.put", node: { ...node, state: "running", result: null } },
      { op: "node.put", node },
      { op: "items.put", items },
      { op: "profile.put", profile },
      { op: "config.put", config },
      { op: "cache.put", entry },
    ]);
    expect(await store.getJob("a")).toMatchObject(job);
    expect(await store.getComposition("c")).toEqual(composition);
    expect(await store.nodeRuns("c")).toEqual([node]);
    expect(await store.nodesByHash("sha256:2")).toEqual([node]);
    expect(await store.nodesByHash("sha256:3")).toEqual([]);
    expect(await store.forEachItems("c")).toEqual([items]);
    expect(await store.getProfile("k")).toEqual(profile);
    expect(await store.listProfiles("other")).toEqual([]);
    expect(await store.getInstanceConfig("i")).toEqual(config);
    expect(await store.listInstanceConfigs()).toEqual([config]);
    expect(await store.cacheEntry("k")).toEqual(entry);

    await store.stage([
      { op: "composition.update", id: "c", changes: { status: "failed", cancelRequested: true } },
      { op: "profile.delete", key: "k" },
      { op: "config.delete", instanceId: "i" },
      { op: "cache.delete", key: "k" },
      { op: "cache.delete", key: "never there" },
    ]);
    expect(await store.listCompositions({ status: ["failed"] })).toMatchObject([
      { id: "c", cancelRequested: true },
    ]);
    expect(await store.listProfiles()).toEqual([]);
    expect(await store.getInstanceConfig("i")).toBeUndefined();
    expect(await store.cacheEntry("k")).toBeUndefined();
  });

  test("list jobs by every filter, and the unfinished ones in submission order", async () => {
    await using store = await openJournalDatabase(path);
    await store.stage([
      { op: "job.insert", job: newJob("a", { compositionId: "c", nodeId: "n" }) },
      { op: "job.insert", job: newJob("b", { status: "running", runId: "r" }) },
      { op: "job.insert", job: newJob("z", { status: "completed" }) },
      { op: "job.insert", job: newJob("d", { capabilityInstanceId: "other" }) },
    ]);
    const ids = async (filter: Parameters<typeof store.listJobs>[0]): Promise<readonly string[]> =>
      (await store.listJobs(filter)).map((job) => job.id);
    expect(await ids({ status: ["pending", "completed"], limit: 2 })).toEqual(["a", "z"]);
    expect(await ids({ compositionId: "c", nodeId: "n" })).toEqual(["a"]);
    expect(await ids({ runId: "r" })).toEqual(["b"]);
    expect(await ids({ capabilityInstanceId: "other" })).toEqual(["d"]);
    expect(await ids({ descending: true, limit: 1 })).toEqual(["d"]);
    expect((await store.unfinishedJobs()).map((job) => job.id)).toEqual(["a", "b", "d"]);
  });
});

describe("the journal", () => {
  test("answers every filter of the original, combined", async () => {
    let minute = 0;
    await using store = await openJournalDatabase(path, {
      now: () => new Date(Date.UTC(2026, 0, 1, 0, minute++)),
    });
    for (const event of [
      { eventType: "a", jobId: "j1", runId: "r1", workerSessionId: "w" },
      { eventType: "b", jobId: "j1", compositionId: "c1", capabilityInstanceId: "i" },
      { eventType: "a", jobId: "j2", compositionId: "c1" },
    ]) {
      await store.stage([{ op: "journal.append", event }]);
    }
    const seqs = async (filter: Parameters<typeof store.queryJournal>[0]): Promise<unknown> =>
      (await store.queryJournal(filter)).map((event) => event.seq);
    expect(await seqs({ jobId: "j1" })).toEqual([1, 2]);
    expect(await seqs({ runId: "r1", workerSessionId: "w" })).toEqual([1]);
    expect(await seqs({ compositionId: "c1", eventType: "a" })).toEqual([3]);
    expect(await seqs({ capabilityInstanceId: "i" })).toEqual([2]);
    expect(await seqs({ afterSeq: 1, descending: true })).toEqual([3, 2]);
    expect(await seqs({ limit: 1 })).toEqual([1]);
    const at = (minuteOfDay: number): Date => new Date(Date.UTC(2026, 0, 1, 0, minuteOfDay));
    expect(await seqs({ sinceTs: at(1), untilTs: at(1) })).toEqual([2]);
    expect(await store.countJournal()).toBe(3);
    expect(await store.countJournal("a")).toBe(2);
  });

  test("lists terminal transitions newest first", async () => {
    await using store = await openJournalDatabase(path);
    const transition = (jobId: string, to: string): Promise<unknown> =>
      store.stage([
        { op: "journal.append", event: { eventType: "state_transition", jobId, payload: { to } } },
      ]);
    await transition("a", "running");
    await transition("a", "completed");
    await transition("b", "failed");
    const terminal = await store.terminalStateEvents();
    expect(terminal.map((event) => event.jobId)).toEqual(["b", "a"]);
    expect(await store.terminalStateEvents(1)).toHaveLength(1);
  });

  test("refuses every update and delete", async () => {
    {
      await using store = await openJournalDatabase(path);
      await store.stage([{ op: "journal.append", event: { eventType: "a" } }]);
    }
    const sqlite = new BetterSqlite3(path);
    expect(() => sqlite.exec("update journal set actor = 'x'")).toThrow(/append-only/u);
    expect(() => sqlite.exec("delete from journal")).toThrow(/append-only/u);
    sqlite.close();
  });

  test("can be read beside the writer, and is not there before the first host", async () => {
    expect(await openJournalReader(path)).toBeUndefined();
    await using store = await openJournalDatabase(path);
    await using reader = await openJournalReader(path);
    await store.stage([{ op: "journal.append", event: { eventType: "a" } }]);
    expect(await reader?.countJournal()).toBe(1);
  });
});

describe("while commits fail", () => {
  test("units are held, the store says so, and they commit in order once it ends", async () => {
    let probe: () => void = () => expect.fail("no probe was scheduled");
    await using store = await openJournalDatabase(path, {
      schedule: (callback, delayMs) => {
        expect(delayMs).toBe(1_000);
        probe = callback;
        return () => undefined;
      },
    });
    const changes: boolean[] = [];
    const lost = Promise.withResolvers<void>();
    store.onAvailability((available) => {
      changes.push(available);
      if (!available) lost.resolve();
    });
    const blocker = new BetterSqlite3(path);
    blocker.exec("BEGIN IMMEDIATE");
    const first = store.stage([{ op: "journal.append", event: { eventType: "first" } }]);
    await lost.promise;
    expect(store.available).toBe(false);
    const second = store.stage([{ op: "journal.append", event: { eventType: "second" } }]);
    probe();
    expect(store.available).toBe(false);
    blocker.exec("ROLLBACK");
    blocker.close();
    probe();
    expect((await first).events[0]?.seq).toBe(1);
    expect((await second).events[0]?.seq).toBe(2);
    expect(changes).toEqual([false, true]);
    await store.stage([{ op: "journal.append", event: { eventType: "third" } }]);
    expect((await store.queryJournal()).map((event) => event.eventType)).toEqual([
      "first",
      "second",
      "third",
    ]);
  });

  test("closing gives the held units back as unavailable", async () => {
    const store = await openJournalDatabase(path);
    const blocker = new BetterSqlite3(path);
    blocker.exec("BEGIN IMMEDIATE");
    const held = store.stage([{ op: "journal.append", event: { eventType: "a" } }]);
    const [outcome] = await Promise.allSettled([held, store[Symbol.asyncDispose]()]);
    expect(outcome).toMatchObject({ reason: { code: "JOURNAL_UNAVAILABLE" } });
    blocker.close();
  });
});

describe("a file that cannot be trusted", () => {
  async function writtenJournal(): Promise<void> {
    await using store = await openJournalDatabase(path);
    for (let index = 0; index < 50; index += 1) {
      await store.stage([{ op: "job.insert", job: newJob(`job-${index}`) }]);
    }
  }

  test.each([
    ["emptied", () => truncate(path, 0)],
    ["cut in half", async () => truncate(path, Math.floor((await readFile(path)).length / 2))],
    ["overwritten", () => writeFile(path, "this is no database, it is text".repeat(500))],
    [
      "scribbled over inside",
      async () => writeFile(path, (await readFile(path)).fill(0xab, 4096, 12 * 4096)),
    ],
  ])("%s is named and left as it is", async (_how, damage) => {
    await writtenJournal();
    await damage();
    const before = await readFile(path);
    await expect(openJournalDatabase(path)).rejects.toMatchObject({
      code: "DATABASE_CORRUPT",
      message: containing(path),
    });
    expect((await readFile(path)).equals(before)).toBe(true);
  });

  test("of another program is not taken over", async () => {
    const sqlite = new BetterSqlite3(path);
    sqlite.exec("create table mine (x)");
    sqlite.close();
    await expect(openJournalDatabase(path)).rejects.toMatchObject({ code: "DATABASE_CORRUPT" });
  });

  test("that has only its log left is not begun anew", async () => {
    await writeFile(`${path}-wal`, "rows");
    await expect(openJournalDatabase(path)).rejects.toMatchObject({ code: "DATABASE_CORRUPT" });
  });

  test("of a newer version is refused by name", async () => {
    await writtenJournal();
    const sqlite = new BetterSqlite3(path);
    sqlite.exec("insert into kysely_migration values ('0099-future', '2030-01-01')");
    sqlite.close();
    await expect(openJournalDatabase(path)).rejects.toMatchObject({
      code: "DATABASE_NEWER",
      message: containing("0099-future"),
    });
  });
});
