import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { composition, item, ref } from "../../../src/composition/index.ts";
import { openQueue, type QueueHost } from "../../support/queue-host.ts";

/** Of SQLite's file format, 4.1: the header of a log, that of a frame, where a commit's size stands. */
const WAL_HEADER = 32;
const FRAME_HEADER = 24;
const SALT = 16;

interface Written {
  readonly commits: number;
  readonly pages: number;
}

/** What is in the write-ahead log; a frame that ends a commit says how large the database is then. */
async function written({ dataDir }: QueueHost): Promise<Written> {
  const log = await readFile(join(dataDir, "journal.db-wal"));
  const pageSize = log.readUInt32BE(8);
  const salt = log.readBigUInt64BE(SALT);
  let [commits, pages] = [0, 0];
  for (let at = WAL_HEADER; at < log.length; at += FRAME_HEADER + pageSize) {
    if (log.readBigUInt64BE(at + 8) !== salt) break;
    pages += 1;
    if (log.readUInt32BE(at + 4) > 0) commits += 1;
  }
  return { commits, pages };
}

let host: QueueHost;

beforeEach(async () => {
  host = await openQueue({ scheduler: { maxLanes: 4, admission: "permissive" } });
  host.executor.add("tool", { work: () => "ok", maxConcurrentRequests: 4 });
  // The first job brings its instance up, which is written too.
  await (await host.queue.submit("tool")).ended();
});
afterEach(() => host[Symbol.asyncDispose]());

async function costOf(work: () => Promise<unknown>): Promise<Written> {
  const before = await written(host);
  await work();
  const after = await written(host);
  return { commits: after.commits - before.commits, pages: after.pages - before.pages };
}

test("a job alone is two commits, one when it is admitted and one when it is over", async () => {
  const count = 20;
  const { commits, pages } = await costOf(async () => {
    for (let n = 0; n < count; n += 1) await (await host.queue.submit("tool")).ended();
  });
  expect(commits).toBe(2 * count);
  expect(pages / count).toBeLessThan(13);
});

test("jobs that are submitted together share commits", async () => {
  const count = 200;
  const { commits, pages } = await costOf(async () => {
    const jobs = await Promise.all(Array.from({ length: count }, () => host.queue.submit("tool")));
    await Promise.all(jobs.map((job) => job.ended()));
  });
  expect(commits).toBeLessThan(count);
  expect(pages / count).toBeLessThan(5);
});

test("a chain is one commit a node", async () => {
  const length = 30;
  const nodes = Object.fromEntries(
    Array.from({ length }, (_, n) => [
      `n${n}`,
      { capability: "tool", kwargs: n === 0 ? {} : { in: ref(`n${n - 1}`) } },
    ]),
  );
  const { commits, pages } = await costOf(async () => {
    await (await host.queue.submitComposition(composition(nodes))).result();
  });
  expect(commits).toBe(length + 1);
  expect(pages / length).toBeLessThan(13);
});

test("members of a fan-out share commits", async () => {
  const members = 200;
  const forEach = Array.from({ length: members }, (_, n) => n);
  const fan = composition({ each: { capability: "tool", kwargs: { n: item() }, forEach } });
  const { commits, pages } = await costOf(async () => {
    await (await host.queue.submitComposition(fan)).result();
  });
  expect(commits).toBeLessThan(members);
  expect(pages / members).toBeLessThan(7);
});
