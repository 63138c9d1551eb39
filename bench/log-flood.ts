/**
 * Log records of four tools that talk at once, attributed to their jobs and stored, beside the same
 * bytes through a bare pipe to a file:
 *
 *     npm run build && npm run bench -- log-flood [--lines 100000] [--rate 26000] [--rounds 7]
 *
 * Twice: as fast as the tools can, and at `rate` records a second each. The clock stops when the last
 * record is in the database. What a tool says beyond its limit is counted and left out: `kept` says
 * how much came through. `blocked` is the longest that the host's event loop was not heard of.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";
import type { Pipeline } from "../src/index.ts";
import { type Numbers, Report } from "./report.ts";
import { openTools } from "./tools.ts";

const { values } = parseArgs({
  options: {
    lines: { type: "string", default: "100000" },
    rate: { type: "string", default: "26000" },
    rounds: { type: "string", default: "7" },
  },
});
const lines = Number(values.lines);
const TOOLS = 4;
const PAGE = 10_000;

/** A rate of 0 is as fast as they can. */
async function ours(perSecond: number): Promise<Numbers> {
  await using host = await openTools("chatter", ["talk"], TOOLS);
  const { queue, diagnostics } = host.pipeline;
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  const cpu = process.cpuUsage();
  const start = performance.now();
  const input = { lines, per_second: perSecond };
  const jobs = await Promise.all(
    Array.from({ length: TOOLS }, (_, n) =>
      queue.submit(`chatter-${n}`, input, { action: "talk" }),
    ),
  );
  await Promise.all(jobs.map((job) => job.ended()));
  await diagnostics.flush();
  const seconds = (performance.now() - start) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  delay.disable();
  let kept = 0;
  for (const job of jobs) kept += await storedOf(host.pipeline, job.id);
  return {
    "records a second": kept / seconds,
    "kept %": (kept / (lines * TOOLS)) * 100,
    "µs processor of the host": (user + system) / kept,
    "blocked ms": delay.max / 1e6,
  };
}

/** Counts a job's records, and sees that each is that job's and none is there twice. */
async function storedOf({ diagnostics }: Pipeline, jobId: string): Promise<number> {
  let count = 0;
  for (let afterSeq = 0; ;) {
    const records = await diagnostics.queryRecords({ jobId, afterSeq, limit: PAGE });
    for (const { seq, jobId: of } of records) {
      if (of !== jobId || seq <= afterSeq) throw new Error(`record ${seq} is not of ${jobId}`);
      afterSeq = seq;
    }
    count += records.length;
    if (records.length < PAGE) return count;
  }
}

function pipe(): Promise<Numbers> {
  const folder = mkdtempSync(join(tmpdir(), "bench-logs-"));
  try {
    const text = "line 12345 of a tool that says much about what it does";
    const talk = `yes '${text}' | head -n ${lines} > ${folder}`;
    const all = Array.from({ length: TOOLS }, (_, n) => `(${talk}/${n}) &`).join(" ");
    const start = performance.now();
    execFileSync("sh", ["-c", `${all} wait`]);
    return Promise.resolve({
      "records a second": (lines * TOOLS) / ((performance.now() - start) / 1_000),
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

using report = new Report();
const metrics = {
  "records a second": "more",
  "kept %": "more",
  "µs processor of the host": "less",
  "blocked ms": "less",
} as const;
await report.compare(
  {
    row: `${TOOLS} tools, ${lines} lines each, as fast as they can`,
    rounds: Number(values.rounds),
    metrics,
  },
  { ours: () => ours(0), "bare pipe to a file": pipe },
);
await report.compare(
  {
    row: `${TOOLS} tools, ${lines} lines each at ${values.rate} a second`,
    rounds: Number(values.rounds),
    metrics,
  },
  { ours: () => ours(Number(values.rate)) },
);
