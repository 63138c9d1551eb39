/**
 * The queue against the limit of this machine and against the original: durable no-op jobs.
 *
 *     npm run bench -- queue [--count 10000] [--rounds 7] [--row jobs|latency|chain|fan|pending|memory]
 */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { composition, ref } from "../src/composition/index.ts";
import type { JobQueue } from "../src/queue/index.ts";
import { type Commits, recordUnits, replay } from "./limits.ts";
import { runOriginal } from "./original.ts";
import { openQueueHost, type QueueHost } from "./queue-host.ts";
import { type Cost, costOf, type Numbers, quantile, Report } from "./report.ts";

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "10000" },
    rounds: { type: "string", default: "7" },
    row: { type: "string", default: "all" },
  },
});
const count = Number(values.count);
const rounds = Number(values.rounds);
/** In flight at once, as from a caller with a bounded number of requests. */
const WAVE = 256;
const RATE = { "per second": "more", "µs processor": "less" } as const;
using report = new Report();

function rate(cost: Cost): Numbers {
  return { "per second": count / cost.seconds, "µs processor": (cost.cpu / count) * 1e6 };
}

async function submitMany(queue: JobQueue, total: number): Promise<void> {
  for (let done = 0; done < total; done += WAVE) {
    const size = Math.min(WAVE, total - done);
    const jobs = Array.from({ length: size }, (_, n) => queue.submit("noop", { n: done + n }));
    await Promise.all((await Promise.all(jobs)).map((job) => job.ended()));
  }
}

/** What the work writes, in its commits. */
async function recorded(work: (host: QueueHost) => Promise<void>): Promise<Commits> {
  const commits: Commits = [];
  await using host = await openQueueHost((store) => recordUnits(store, commits));
  await work(host);
  return commits;
}

async function jobs(): Promise<void> {
  const commits = await recorded(({ queue }) => submitMany(queue, count));
  report.note("jobs, commits", commits.length);
  await report.compare(
    {
      row: "no-op jobs",
      rounds,
      metrics: RATE,
      goals: { limit: { "per second": 0.6 }, original: { "per second": 20 } },
    },
    {
      ours: async () => {
        await using host = await openQueueHost();
        await submitMany(host.queue, count / 10);
        return rate(await costOf(() => submitMany(host.queue, count)));
      },
      limit: async () => rate(await replay(commits)),
      original: async () => {
        const { queue_jobs_per_s: perSecond = Number.NaN } = await runOriginal(300);
        return { "per second": perSecond };
      },
    },
  );
}

async function latency(): Promise<void> {
  const times = async ({ queue }: QueueHost): Promise<number[]> => {
    const taken: number[] = [];
    for (let n = 0; n < 500; n += 1) {
      const start = performance.now();
      await (await queue.submit("noop", { n })).result();
      taken.push(performance.now() - start);
    }
    return taken;
  };
  const commits = await recorded(async (host) => {
    await times(host);
  });
  await report.compare(
    { row: "one job, idle", rounds, metrics: { "ms p50": "less", "ms p95": "less" } },
    {
      ours: async () => {
        await using host = await openQueueHost();
        const taken = await times(host);
        return { "ms p50": quantile(taken, 0.5), "ms p95": quantile(taken, 0.95) };
      },
      // Its rows are in two commits, one after the other.
      limit: async () => ({ "ms p50": ((await replay(commits)).seconds / 500) * 1_000 }),
    },
  );
}

async function graph(kind: "chain" | "fan"): Promise<void> {
  const nodes = Object.fromEntries(
    Array.from({ length: count }, (_, n) => [
      `n${n}`,
      {
        capability: "noop",
        kwargs: { n: kind === "chain" && n > 0 ? ref(`n${n - 1}`, "n") : n },
      },
    ]),
  );
  const run = async ({ queue }: QueueHost): Promise<void> => {
    await (await queue.submitComposition(composition(nodes))).result();
  };
  const commits = await recorded(run);
  report.note(`${kind}, commits`, commits.length);
  await report.compare(
    {
      row: kind,
      rounds,
      metrics: RATE,
      goals: kind === "chain" ? { limit: { "per second": 0.7 } } : {},
    },
    {
      ours: async () => {
        await using host = await openQueueHost();
        return rate(await costOf(() => run(host)));
      },
      limit: async () => rate(await replay(commits)),
      ...(kind === "chain" && {
        original: async () => {
          const { chain_nodes_per_s: perSecond = Number.NaN } = await runOriginal(20);
          return { "per second": perSecond };
        },
      }),
    },
  );
}

/** In a process of its own: what this one has done before would hide the growth. */
async function memory(): Promise<void> {
  const script = fileURLToPath(new URL("memory.ts", import.meta.url));
  const grown =
    (...options: string[]) =>
    async (): Promise<Numbers> => {
      const args = [...options, "-C", "@cjm/source", script, String(count)];
      const { growth, live } = JSON.parse(
        execFileSync(process.execPath, args, { encoding: "utf8" }),
      ) as { growth: number; live: number };
      return await Promise.resolve({ "MiB RSS growth": growth, "MiB live heap": live });
    };
  await report.compare(
    {
      row: "fan, memory",
      rounds,
      metrics: { "MiB RSS growth": "less", "MiB live heap": "less" },
    },
    { "as it is": grown(), "nursery of 16 MiB": grown("--max-semi-space-size=16") },
  );
}

const PROBES = 2_000;

/** What a submit and a job cost when so many wait already; by processor time. */
async function atDepth(depth: number): Promise<Numbers> {
  await using host = await openQueueHost();
  const { queue, executor } = host;
  const gate = Promise.withResolvers<void>();
  executor.gate = gate.promise;
  for (let made = 0; made < depth; made += 1_000) {
    const size = Math.min(1_000, depth - made);
    await Promise.all(Array.from({ length: size }, (_, n) => queue.submit("noop", { n })));
  }
  const submit = await costOf(() =>
    Promise.all(Array.from({ length: PROBES }, (_, n) => queue.submit("noop", { n }))),
  );
  const before = queue.getStats().completed;
  executor.gate = null;
  gate.resolve();
  const dispatch = await costOf(async () => {
    while (queue.getStats().completed < before + PROBES) {
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
  });
  return {
    "µs a submit": (submit.cpu / PROBES) * 1e6,
    "µs a dispatch": (dispatch.cpu / PROBES) * 1e6,
  };
}

async function pending(): Promise<void> {
  // The first of a process pays for its compilation.
  await atDepth(100);
  await report.compare(
    {
      row: "pending",
      rounds,
      metrics: { "µs a submit": "less", "µs a dispatch": "less" },
      goals: { "at 100": { "µs a submit": 1 / 1.5, "µs a dispatch": 1 / 1.5 } },
    },
    { "at 100,000": () => atDepth(100_000), "at 100": () => atDepth(100) },
  );
}

const rows = {
  jobs,
  latency,
  chain: () => graph("chain"),
  fan: () => graph("fan"),
  memory,
  pending,
};
for (const [name, run] of Object.entries(rows)) {
  if (values.row === "all" || values.row === name) await run();
}
