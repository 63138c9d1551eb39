/**
 * Durable no-op jobs beside what people would take instead, in turn, in one run:
 *
 *     (cd bench/peers && npm ci) && npm run bench -- jobs [--count 2000] [--rounds 7]
 *
 * BullMQ on a local Redis, DBOS on a local PostgreSQL, the Python original, and p-queue in memory,
 * which keeps nothing and so is the limit.
 */
import { parseArgs } from "node:util";
import { DBOS } from "@dbos-inc/dbos-sdk";
import { Queue, QueueEvents, Worker } from "bullmq";
import PQueue from "p-queue";
import { runOriginal } from "../original.ts";
import { openQueueHost } from "../queue-host.ts";
import { type Numbers, quantile, Report } from "../report.ts";
import { startPostgres, startRedis } from "./servers.ts";

const { values } = parseArgs({
  options: { count: { type: "string", default: "2000" }, rounds: { type: "string", default: "7" } },
});
const count = Number(values.count);
/** In flight at once, as from a caller with a bounded number of requests. */
const WAVE = 256;
const LANES = 16;
const IDLE_JOBS = 200;

/** Submits one job and resolves with its result. */
type Submit = (n: number) => Promise<unknown>;

async function measure(submit: Submit): Promise<Numbers> {
  for (let n = 0; n < WAVE; n += 1) await submit(n);
  const start = performance.now();
  for (let done = 0; done < count; done += WAVE) {
    const size = Math.min(WAVE, count - done);
    await Promise.all(Array.from({ length: size }, (_, n) => submit(done + n)));
  }
  const seconds = (performance.now() - start) / 1_000;
  const taken: number[] = [];
  for (let n = 0; n < IDLE_JOBS; n += 1) {
    const begun = performance.now();
    await submit(n);
    taken.push(performance.now() - begun);
  }
  return { "per second": count / seconds, "ms p50 idle": quantile(taken, 0.5) };
}

async function ours(): Promise<Numbers> {
  await using host = await openQueueHost();
  return await measure(async (n) => (await host.queue.submit("noop", { n })).result());
}

async function inMemory(): Promise<Numbers> {
  const queue = new PQueue({ concurrency: LANES });
  return await measure((n) => queue.add(() => Promise.resolve(n)));
}

const bullmq = (appendfsync: "always" | "everysec") => async (): Promise<Numbers> => {
  await using redis = await startRedis(appendfsync);
  const connection = { path: redis.socket, maxRetriesPerRequest: null };
  const queue = new Queue("noop", { connection });
  // One for each job that is waited for.
  queue.setMaxListeners(0);
  const events = new QueueEvents("noop", { connection });
  const worker = new Worker("noop", (job) => Promise.resolve(job.data), {
    connection,
    concurrency: LANES,
  });
  await Promise.all([events.waitUntilReady(), worker.waitUntilReady()]);
  try {
    return await measure(async (n) => (await queue.add("noop", { n })).waitUntilFinished(events));
  } finally {
    await worker.close();
    await events.close();
    await queue.close();
  }
};

const dbosNoOp = DBOS.registerWorkflow((n: number) => DBOS.runStep(() => Promise.resolve(n)), {
  name: "noop",
});

async function dbos(): Promise<Numbers> {
  await using postgres = await startPostgres();
  const url = `postgresql://bench@localhost/bench?host=${encodeURIComponent(postgres.socket)}`;
  DBOS.setConfig({ name: "bench", systemDatabaseUrl: url, logLevel: "error" });
  await DBOS.launch();
  try {
    return await measure(async (n) => (await DBOS.startWorkflow(dbosNoOp)(n)).getResult());
  } finally {
    await DBOS.shutdown();
  }
}

async function original(): Promise<Numbers> {
  const { queue_jobs_per_s: perSecond = Number.NaN } = await runOriginal(300);
  return { "per second": perSecond };
}

using report = new Report();
await report.compare(
  {
    row: "durable no-op jobs",
    rounds: Number(values.rounds),
    metrics: { "per second": "more", "ms p50 idle": "less" },
    goals: { original: { "per second": 20 } },
  },
  {
    ours,
    "p-queue in memory": inMemory,
    "BullMQ, fsync always": bullmq("always"),
    "BullMQ, fsync each second": bullmq("everysec"),
    "DBOS on PostgreSQL": dbos,
    original,
  },
);
