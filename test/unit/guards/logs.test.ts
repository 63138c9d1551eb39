import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import BetterSqlite3 from "better-sqlite3";
import { afterEach, beforeEach, expect, test } from "vitest";
import { ControlStream } from "../../../src/process/control-stream.ts";
import { OutputPump } from "../../../src/process/output-pump.ts";
import { DiagnosticsStore } from "../../../src/store/index.ts";
import type { LineBlock } from "../../../src/util/lines.ts";

const WORKERS = 4;
const RECORDS = 4_000;
const CHUNK_BYTES = 64 * 1024;

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-guard-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function logOf(worker: number): Buffer {
  const lines = Array.from({ length: RECORDS }, (_, n) =>
    JSON.stringify({
      type: "log",
      ts: new Date(Date.UTC(2026, 0, 1) + n).toISOString(),
      level: "info",
      logger: "chatter",
      message: `line ${n} of a tool that says much about what it does`,
      job_id: `0195e4a2-7b1c-7000-8000-00000000000${worker}`,
    }),
  );
  return Buffer.from(lines.map((line) => `${line}\n`).join(""));
}

/** Sends what a worker wrote as the host reads it; counts the hand-overs. */
function read(bytes: Buffer, onLogs: (lines: LineBlock) => void): number {
  let handedOver = 0;
  const socket = new PassThrough();
  const control = new ControlStream(socket, "t".repeat(32), {
    frame: () => undefined,
    logs: (lines) => {
      handedOver += 1;
      onLogs(lines);
    },
    note: () => undefined,
    ended: () => undefined,
  });
  for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
    socket.emit("data", bytes.subarray(at, at + CHUNK_BYTES));
  }
  control.close();
  return handedOver;
}

test("log records cost a hand-over a chunk, a row for a hundred of them, and few bytes", async () => {
  const path = join(folder, "diagnostics.db");
  {
    await using store = await DiagnosticsStore.open(path);
    for (let worker = 0; worker < WORKERS; worker += 1) {
      const bytes = logOf(worker);
      const handedOver = read(bytes, (lines) => {
        store.appendFrames({ workerSessionId: `w${worker}`, source: "chatter", lines });
      });
      // A chunk may complete a line of the one before it, which goes on its own.
      expect(handedOver).toBeLessThanOrEqual(2 * Math.ceil(bytes.length / CHUNK_BYTES));
    }
    await store.flush();
    expect(store.dropped).toBe(0);
  }
  const database = new BetterSqlite3(path);
  database.pragma("wal_checkpoint(TRUNCATE)");
  const count = (sql: string): number => Number(database.prepare(sql).pluck().get());
  expect(count("select sum(count) from record_blocks")).toBe(WORKERS * RECORDS);
  const blocks = count("select count(*) from record_blocks");
  expect(WORKERS * (RECORDS / blocks)).toBeGreaterThan(100);
  // Session, job, level and logger of a worker, and of a block of two workers those of both.
  expect(count("select count(*) from record_terms")).toBeLessThan(5 * blocks);
  database.close();
  expect((await stat(path)).size / (WORKERS * RECORDS)).toBeLessThan(140);
});

test("lines of output are handed over a chunk at a time, and not decoded", () => {
  const stream = new PassThrough();
  const blocks: LineBlock[] = [];
  const pump = new OutputPump(stream, (lines) => blocks.push(lines));
  const chunk = Buffer.from("a line of output\n".repeat(3_000));
  for (let n = 0; n < 5; n += 1) stream.emit("data", chunk);
  expect(blocks.map(({ count }) => count)).toEqual([3_000, 3_000, 3_000, 3_000, 3_000]);
  stream.destroy();
  return pump.drain();
});
