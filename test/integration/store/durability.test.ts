import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openJournalDatabase } from "../../../src/store/index.ts";
import { openJournalFile } from "../../../src/store/journal-file.ts";

const run = promisify(execFile);
const has = (program: string): boolean => spawnSync(program, ["--version"]).error === undefined;
const SOURCE = new URL("../../../src/store/index.ts", import.meta.url).href;

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-durability-"));
  path = join(folder, "journal.db");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test("a commit waits for the disk: write-ahead log, synchronous FULL", async () => {
  const sqlite = await openJournalFile(path);
  expect(sqlite.pragma("synchronous", { simple: true })).toBe(2);
  expect(sqlite.pragma("journal_mode", { simple: true })).toBe("wal");
  sqlite.close();
});

test.skipIf(!has("strace"))("every commit is one fsync, however many units share it", async () => {
  const countFsyncs = async (commits: number, unitsEach: number): Promise<number> => {
    const own = join(folder, String(commits), "journal.db");
    await (await openJournalDatabase(own))[Symbol.asyncDispose]();
    const script = `
      const { openJournalDatabase } = await import(${JSON.stringify(SOURCE)});
      const store = await openJournalDatabase(${JSON.stringify(own)});
      for (let commit = 0; commit < ${commits}; commit += 1) {
        await Promise.all(Array.from({ length: ${unitsEach} }, () =>
          store.stage([{ op: "journal.append", event: { eventType: "x" } }])));
      }
      process.kill(process.pid, "SIGKILL");`;
    const trace = ["-f", "-e", "trace=fsync,fdatasync", process.execPath];
    const error: unknown = await run("strace", [
      ...trace,
      "--input-type=module",
      "-e",
      script,
    ]).catch((reason: unknown) => reason);
    const output =
      typeof error === "object" && error !== null && "stderr" in error ? error.stderr : "";
    return String(output).match(/f(?:data)?sync\(/gu)?.length ?? 0;
  };
  const [few, many] = [await countFsyncs(10, 20), await countFsyncs(30, 20)];
  expect(many - few).toBe(20);
});

test.skipIf(!has("prlimit"))(
  "a disk that takes no more holds the units back and loses none of them",
  async () => {
    await (await openJournalDatabase(path))[Symbol.asyncDispose]();
    const script = `
      import { spawnSync } from "node:child_process";
      const { openJournalDatabase } = await import(${JSON.stringify(SOURCE)});
      await using store = await openJournalDatabase(${JSON.stringify(path)}, { probeIntervalMs: 20 });
      const limit = (bytes) => spawnSync("prlimit", ["--pid", String(process.pid), "--fsize=" + bytes + ":unlimited"]);
      const changes = [];
      store.onAvailability((available) => {
        changes.push(available);
        if (!available) limit("unlimited");
      });
      limit(400_000);
      const seqs = [];
      for (let index = 0; index < 60; index += 1) {
        const { events } = await store.stage([
          { op: "journal.append", event: { eventType: "x", payload: { index, pad: "x".repeat(20_000) } } },
        ]);
        seqs.push(events[0].seq);
      }
      console.log(JSON.stringify({ changes, seqs }));`;
    const { stdout } = await run(process.execPath, ["--input-type=module", "-e", script]);
    expect(JSON.parse(stdout)).toEqual({
      changes: [false, true],
      seqs: Array.from({ length: 60 }, (_, index) => index + 1),
    });
    await using store = await openJournalDatabase(path);
    const written = await store.queryJournal();
    expect(written.map((event) => event.payload["index"])).toEqual(
      Array.from({ length: 60 }, (_, index) => index),
    );
  },
);

test("what was answered as committed is there after SIGKILL, and no unit is there by half", async () => {
  const script = `
    const { openJournalDatabase } = await import(${JSON.stringify(SOURCE)});
    const store = await openJournalDatabase(${JSON.stringify(path)});
    for (let index = 0; index < 1000; index += 1) {
      await store.stage([
        { op: "journal.append", event: { eventType: "x", jobId: String(index) } },
        { op: "job.insert", job: { id: String(index), capabilityInstanceId: "i", kwargs: {}, control: {},
          priority: 0, status: "pending", submittedAt: "" } },
      ]);
      process.stdout.write(index + "\\n");
      if (index === 50) process.kill(process.pid, "SIGKILL");
    }`;
  const ended: unknown = await run(process.execPath, ["--input-type=module", "-e", script]).catch(
    (reason: unknown) => reason,
  );
  expect(ended).toMatchObject({ signal: "SIGKILL" });
  await using store = await openJournalDatabase(path);
  const jobs = (await store.listJobs()).map((job) => job.id);
  expect(jobs).toEqual(Array.from({ length: 51 }, (_, index) => String(index)));
  expect((await store.queryJournal()).map((event) => event.jobId)).toEqual(jobs);
});
