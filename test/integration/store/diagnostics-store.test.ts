import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import BetterSqlite3 from "better-sqlite3";
import { DiagnosticsReader, DiagnosticsStore } from "../../../src/store/index.ts";
import { joinLines, type LineBlock } from "../../../src/util/lines.ts";

let folder: string;
let path: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-diagnostics-"));
  path = join(folder, "diagnostics.db");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const linesOf = (lines: readonly string[]): LineBlock =>
  joinLines([Buffer.from(lines.map((line) => `${line}\n`).join(""))], lines.length);

const day = (count: number): Date => new Date(Date.UTC(2026, 0, 1 + count));

describe("diagnostics", () => {
  test("come back by job, session, level and cursor", async () => {
    await using store = await DiagnosticsStore.open(path, { now: () => day(0) });
    store.appendRecord({ message: "one", jobId: "a", workerSessionId: "w", loggerName: "tool" });
    store.appendRecord({ message: "two", jobId: "a", level: "error", excText: "Trace" });
    store.appendRecord({ message: "three" });
    store.appendChunk({ stream: "stderr", content: "line", workerSessionId: "w" });
    await store.flush();
    expect(await store.queryRecords({ jobId: "a" })).toMatchObject([
      {
        seq: 1,
        ts: "2026-01-01T00:00:00.000Z",
        message: "one",
        level: "info",
        loggerName: "tool",
        workerSessionId: "w",
        excText: null,
      },
      { seq: 2, message: "two", excText: "Trace" },
    ]);
    const messages = async (filter: Parameters<typeof store.queryRecords>[0]): Promise<unknown> =>
      (await store.queryRecords(filter)).map((record) => record.message);
    expect(await messages({ level: "error" })).toEqual(["two"]);
    expect(await messages({ workerSessionId: "w" })).toEqual(["one"]);
    expect(await messages({ afterSeq: 1, limit: 1 })).toEqual(["two"]);
    expect(await messages({ descending: true, limit: 2 })).toEqual(["three", "two"]);
    expect(await store.queryChunks({ workerSessionId: "w", afterSeq: 0, limit: 5 })).toMatchObject([
      { seq: 1, stream: "stderr", content: "line" },
    ]);
    expect(await store.queryChunks({ workerSessionId: "other" })).toEqual([]);
  });

  test("that were appended before closing are there for the next reader", async () => {
    expect(DiagnosticsReader.open(path)).toBeUndefined();
    {
      await using store = await DiagnosticsStore.open(path);
      for (let index = 0; index < 12_000; index += 1) {
        store.appendChunk({ stream: "stdout", content: `line ${index}` });
      }
    }
    await using reader = DiagnosticsReader.open(path);
    const chunks = (await reader?.queryChunks()) ?? [];
    expect(chunks).toHaveLength(12_000);
    expect(chunks.at(-1)?.content).toBe("line 11999");
  });

  test("that arrive as a worker wrote them are attributed, and numbered as they came", async () => {
    const logs = Array.from({ length: 300 }, (_, index) =>
      JSON.stringify({
        type: "log",
        ts: new Date(Date.UTC(2026, 0, 1) + index).toISOString(),
        level: index % 100 === 99 ? "error" : "info",
        logger: "tool",
        message: `line ${index}`,
        job_id: `job-${index % 3}`,
      }),
    );
    await using store = await DiagnosticsStore.open(path, { now: () => day(0) });
    store.appendRecord({ message: "before" });
    store.appendFrames({ workerSessionId: "w", source: "echo", lines: linesOf(logs) });
    const broken = [logs[0] ?? "", '{"type":"log","ts":1}'];
    store.appendFrames({ workerSessionId: "v", source: "echo", lines: linesOf(broken) });
    store.appendOutput({ workerSessionId: "w", stream: "stderr", lines: linesOf(["a", "", "b"]) });
    await store.flush();
    const ofJob = await store.queryRecords({ jobId: "job-1", workerSessionId: "w" });
    expect(ofJob.map(({ seq }) => seq)).toEqual(Array.from({ length: 100 }, (_, n) => 3 + 3 * n));
    expect(ofJob.at(-1)).toMatchObject({ message: "line 298", loggerName: "tool", level: "info" });
    const seqs = async (filter: Parameters<typeof store.queryRecords>[0]): Promise<number[]> =>
      (await store.queryRecords(filter)).map(({ seq }) => seq);
    expect(await seqs({ level: "error" })).toEqual([101, 201, 301]);
    expect(await seqs({ level: "error", jobId: "job-2", descending: true, limit: 1 })).toEqual([
      301,
    ]);
    expect(await seqs({ loggerName: "tool", afterSeq: 299, workerSessionId: "w" })).toEqual([
      300, 301,
    ]);
    const sinceTs = "2026-01-01T00:00:00.297Z";
    expect(await seqs({ sinceTs, untilTs: "2026-01-01T00:00:00.298Z" })).toEqual([299, 300]);
    expect(await store.queryRecords({ afterSeq: 301 })).toMatchObject([
      { seq: 302, message: "line 0", workerSessionId: "v" },
      { seq: 303, message: 'echo: not a control frame: {"type":"log","ts":1}', jobId: null },
    ]);
    expect(await store.queryChunks({ workerSessionId: "w" })).toMatchObject([
      { seq: 1, content: "a", stream: "stderr", ts: "2026-01-01T00:00:00.000Z" },
      { seq: 2, content: "b" },
    ]);
  });

  test("are never numbered twice, whatever was deleted", async () => {
    for (const seq of [1, 3]) {
      await using store = await DiagnosticsStore.open(path, { now: () => day(seq) });
      store.appendRecord({ message: "one" });
      store.appendRecord({ message: "two" });
      await store.flush();
      expect((await store.queryRecords()).map((record) => record.seq)).toEqual([seq, seq + 1]);
      expect((await store.applyRetention({ maxTotalMb: 0 })).recordsDeleted).toBe(2);
      expect(await store.queryRecords({ level: "info" })).toEqual([]);
    }
  });

  test("of another version are refused by name to a reader and put aside by a host", async () => {
    const database = new BetterSqlite3(path);
    database.exec("create table records (seq integer primary key); pragma user_version = 1");
    database.close();
    {
      await using reader = DiagnosticsReader.open(path);
      await expect(reader?.queryRecords()).rejects.toMatchObject({
        code: "STORE_REJECTED",
        message: expect.stringContaining(`${path} is of version 1`) as string,
      });
    }
    await using store = await DiagnosticsStore.open(path);
    await store.flush();
    expect(await store.queryRecords()).toMatchObject([
      { message: expect.stringContaining(`moved to ${path}.old`) as string },
    ]);
  });

  test("drop the oldest when the writer cannot keep up, and say how many", async () => {
    await using store = await DiagnosticsStore.open(path, { capacity: 10 });
    for (let index = 0; index < 25; index += 1) {
      store.appendChunk({ stream: "stdout", content: `line ${index}` });
    }
    expect(store.dropped).toBe(15);
    await store.flush();
    const kept = await store.queryChunks();
    expect(kept.map((chunk) => chunk.content)).toContain("line 24");
    expect(kept.map((chunk) => chunk.content)).not.toContain("line 14");
    const [note] = await store.queryRecords({ level: "warning" });
    expect(note?.message).toMatch(/^1\d diagnostic entries were dropped/u);
  });

  test("hold no secret: values are redacted before they leave the thread", async () => {
    await using store = await DiagnosticsStore.open(path, { secrets: ['pa"ss+word'] });
    store.appendRecord({ message: 'key pa"ss+word!', excText: String.raw`{"k":"pa\"ss+word"}` });
    store.appendChunk({ stream: "stdout", content: "GET /?k=pa%22ss%2Bword" });
    await store.flush();
    expect(await store.queryRecords()).toMatchObject([
      { message: "key [redacted]!", excText: '{"k":"[redacted]"}' },
    ]);
    expect(await store.queryChunks()).toMatchObject([{ content: "GET /?k=[redacted]" }]);
    const bytes = await readFile(`${path}-wal`, "latin1");
    expect(bytes).not.toContain("ss+word");
  });

  test("hold no secret that was learned after the start, in frames and output as well", async () => {
    await using store = await DiagnosticsStore.open(path, { secrets: ["first-secret"] });
    store.learn(["second-secret"]);
    const log = { type: "log", ts: "t", level: "info", logger: "second-secret", message: "m" };
    const frames = [log, { ...log, message: "has first-secret", exc: "and second-secret" }];
    const lines = linesOf(frames.map((frame) => JSON.stringify(frame)));
    store.appendFrames({ workerSessionId: "w", source: "echo", lines });
    const output = linesOf(["nothing", "a second-secret"]);
    store.appendOutput({ workerSessionId: "w", stream: "stdout", lines: output });
    await store.flush();
    expect(await store.queryRecords()).toMatchObject([
      { loggerName: "[redacted]", message: "m", excText: null },
      { loggerName: "[redacted]", message: "has [redacted]", excText: "and [redacted]" },
    ]);
    expect((await store.queryChunks()).map(({ content }) => content)).toEqual([
      "nothing",
      "a [redacted]",
    ]);
    expect(await readFile(`${path}-wal`, "latin1")).not.toMatch(/(?:first|second)-secret/u);
  });

  test("older than the age are deleted", async () => {
    let today = 0;
    await using store = await DiagnosticsStore.open(path, { now: () => day(today) });
    for (today = 0; today < 10; today += 1) {
      store.appendRecord({ message: `day ${today}` });
      store.appendChunk({ stream: "stdout", content: `day ${today}` });
    }
    await store.flush();
    expect(await store.applyRetention({ maxAgeDays: 3.5 })).toEqual({
      recordsDeleted: 7,
      chunksDeleted: 7,
    });
    expect((await store.queryRecords()).map((record) => record.message)).toEqual([
      "day 7",
      "day 8",
      "day 9",
    ]);
  });

  test("beyond the size are deleted oldest first, and the file shrinks", async () => {
    let second = 0;
    await using store = await DiagnosticsStore.open(path, {
      now: () => new Date(Date.UTC(2026, 0, 1) + (second += 1) * 1000),
    });
    for (let index = 0; index < 6_000; index += 1) {
      store.appendRecord({ message: `${index} ${"x".repeat(500)}` });
    }
    await store.flush();
    const result = await store.applyRetention({ maxTotalMb: 1 });
    expect(result.recordsDeleted).toBeGreaterThan(3_000);
    expect((await stat(path)).size).toBeLessThan(1.2 * 1024 * 1024);
    const [oldest] = await store.queryRecords({ limit: 1 });
    expect(oldest?.message.startsWith(`${result.recordsDeleted} `)).toBe(true);
    expect(await store.applyRetention({})).toEqual({ recordsDeleted: 0, chunksDeleted: 0 });
  });

  test("keep to their size while they are written", async () => {
    let second = 0;
    const now = (): Date => new Date(Date.UTC(2026, 0, 1) + (second += 1) * 1000);
    await using store = await DiagnosticsStore.open(path, { maxTotalMb: 1, now });
    for (let index = 0; index < 6_000; index += 1) {
      store.appendRecord({ message: `${index} ${"x".repeat(500)}` });
      if (index % 500 === 0) await store.flush();
    }
    await store.flush();
    // Comes after what the store has asked for itself.
    await store.applyRetention({});
    expect((await stat(path)).size).toBeLessThan(2 * 1024 * 1024);
    const [newest] = await store.queryRecords({ descending: true, limit: 1 });
    expect(newest).toMatchObject({ seq: 6_000 });
  });

  test("in a damaged file are put aside, and the host starts all the same", async () => {
    await writeFile(path, "no database at all ".repeat(400));
    await using store = await DiagnosticsStore.open(path);
    await store.flush();
    expect(await store.queryRecords({ level: "warning" })).toMatchObject([
      { loggerName: "cjm.diagnostics" },
    ]);
    expect(await readFile(`${path}.old`, "utf8")).toContain("no database at all");
  });

  test("in a damaged file are refused by name to a mere reader", async () => {
    await writeFile(path, "no database at all ".repeat(400));
    await using reader = DiagnosticsReader.open(path);
    await expect(reader?.queryRecords()).rejects.toMatchObject({
      code: "DATABASE_CORRUPT",
      details: { path },
    });
  });

  test("appended after closing are counted as dropped", async () => {
    const store = await DiagnosticsStore.open(path);
    await store[Symbol.asyncDispose]();
    store.appendRecord({ message: "late" });
    expect(store.dropped).toBe(1);
    await expect(store.flush()).rejects.toMatchObject({ code: "STORE_REJECTED" });
  });
});
