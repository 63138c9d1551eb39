/**
 * The queue against the limit of this machine: no-op jobs with full durability.
 *
 *     node bench/queue.ts [jobs] [chain|fan|jobs|latency|pending|all]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { composition, ref } from "../src/composition/index.ts";
import { JobQueue, ProfileBook } from "../src/queue/index.ts";
import {
  openJournalDatabase,
  ResultFiles,
  type StorePort,
  type StoreWrite,
} from "../src/store/index.ts";
import { type Cost, recordUnits, replay } from "./limits.ts";
import { AMPLE, NoOpExecutor } from "./no-op-executor.ts";

const COUNT = Number(process.argv[2] ?? 10_000);
const WHAT = process.argv[3] ?? "all";
const LANES = Number(process.env["LANES"] ?? 16);

interface Host extends AsyncDisposable {
  readonly queue: JobQueue;
  readonly executor: NoOpExecutor;
  readonly store: StorePort;
}

async function open(wrap: (store: StorePort) => StorePort = (store) => store): Promise<Host> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
  const database = await openJournalDatabase(join(folder, "journal.db"));
  const executor = new NoOpExecutor(LANES);
  const queue = new JobQueue({
    store: wrap(database),
    results: new ResultFiles(folder),
    executor,
    probe: AMPLE,
    profiles: new ProfileBook([]),
    scheduler: { maxLanes: LANES },
    cancelTimeoutMs: 3_000,
    history: 1_000,
    maxRetries: 1,
  });
  queue.start();
  // A first run alone is the measurement of all that follow.
  await (await queue.submit("noop")).result();
  return {
    queue,
    executor,
    store: database,
    async [Symbol.asyncDispose]() {
      await queue.stop(1_000);
      await database[Symbol.asyncDispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** Seconds on the clock, and of processor time: the latter is what counts on a machine in use. */
async function timed(work: () => Promise<unknown>): Promise<Cost> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  return { seconds, cpu: (user + system) / 1e6 };
}

function ratio(limit: Cost, ours: Cost): string {
  const share = (a: number, b: number): string => (a / b).toFixed(2);
  return `ratio ${share(limit.seconds, ours.seconds)} by clock, ${share(limit.cpu, ours.cpu)} by processor time`;
}

async function submitMany(queue: JobQueue, count: number): Promise<void> {
  // In waves, as a caller with a bounded number of requests in flight.
  const wave = 256;
  for (let done = 0; done < count; done += wave) {
    const size = Math.min(wave, count - done);
    const jobs = Array.from({ length: size }, (_, n) => queue.submit("noop", { n: done + n }));
    await Promise.all((await Promise.all(jobs)).map((job) => job.ended()));
  }
}

async function jobs(): Promise<void> {
  const units: (readonly StoreWrite[])[][] = [];
  {
    await using host = await open((store) => recordUnits(store, units));
    await submitMany(host.queue, COUNT);
  }
  let ours: Cost;
  {
    await using host = await open();
    await submitMany(host.queue, COUNT / 10);
    ours = await timed(() => submitMany(host.queue, COUNT));
  }
  const limit = await replay(units);
  const rate = (cost: Cost): string => (COUNT / cost.seconds).toFixed(0);
  console.log(
    `no-op jobs   ${rate(ours)}/s, limit ${rate(limit)}/s, ${ratio(limit, ours)}, ${units.length} commits`,
  );
}

async function latency(): Promise<void> {
  await using host = await open();
  const times: number[] = [];
  for (let n = 0; n < 500; n += 1) {
    const start = performance.now();
    await (await host.queue.submit("noop", { n })).result();
    times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(2);
  console.log(`latency      p50 ${at(0.5)} ms, p95 ${at(0.95)} ms, p99 ${at(0.99)} ms`);
}

async function pending(): Promise<void> {
  for (const depth of [100, 10_000, 100_000]) {
    await using host = await open();
    const gate = Promise.withResolvers<void>();
    host.executor.gate = gate.promise;
    const wait: Promise<unknown>[] = [];
    for (let n = 0; n < depth; n += 1) {
      wait.push(host.queue.submit("noop", { n }));
      if (wait.length % 1_000 === 0) await Promise.all(wait.slice(-1_000));
    }
    await Promise.all(wait);
    const probe = 2_000;
    const submit = await timed(() =>
      Promise.all(Array.from({ length: probe }, (_, n) => host.queue.submit("noop", { n }))),
    );
    const before = host.queue.getStats().completed;
    host.executor.gate = null;
    gate.resolve();
    const done = await timed(async () => {
      while (host.queue.getStats().completed < before + probe) {
        await new Promise<void>((resolve) => {
          setImmediate(resolve);
        });
      }
    });
    const cost = ({ cpu }: Cost): string => ((cpu / probe) * 1e6).toFixed(0);
    console.log(
      `pending ${depth}: submit ${cost(submit)} µs, dispatch to end ${cost(done)} µs of processor time`,
    );
  }
}

async function graph(kind: "chain" | "fan"): Promise<void> {
  const nodes = Object.fromEntries(
    Array.from({ length: COUNT }, (_, n) => [
      `n${n}`,
      {
        capability: "noop",
        kwargs: { n: kind === "chain" && n > 0 ? ref(`n${n - 1}`, "n") : n },
      },
    ]),
  );
  const units: (readonly StoreWrite[])[][] = [];
  const run = async ({ queue }: Host): Promise<void> => {
    await (await queue.submitComposition(composition(nodes))).result();
  };
  let ours: Cost;
  const before = process.memoryUsage.rss();
  let peak = before;
  {
    await using host = await open();
    const timer = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage.rss());
    }, 50);
    ours = await timed(() => run(host));
    clearInterval(timer);
  }
  {
    await using host = await open((store) => recordUnits(store, units));
    await run(host);
  }
  const limit = await replay(units);
  const rate = (cost: Cost): string => (COUNT / cost.seconds).toFixed(0);
  console.log(
    `${kind.padEnd(12)} ${rate(ours)} nodes/s, limit ${rate(limit)}/s, ${ratio(limit, ours)}, ${units.length} commits, RSS +${((peak - before) / 2 ** 20).toFixed(0)} MiB`,
  );
}

if (WHAT === "jobs" || WHAT === "all") await jobs();
if (WHAT === "latency" || WHAT === "all") await latency();
if (WHAT === "chain" || WHAT === "all") await graph("chain");
if (WHAT === "fan" || WHAT === "all") await graph("fan");
if (WHAT === "pending" || WHAT === "all") await pending();
