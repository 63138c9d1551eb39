/**
 * Log records of four tools that talk at once, attributed to their jobs and stored, beside the same
 * bytes through a bare pipe to a file:
 *
 *     npm run build && npm run bench -- log-flood [--lines 50000] [--rounds 7]
 *
 * What a tool says beyond the limit of lines a second is counted and left out: `kept` says how much
 * came through.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Numbers, Report } from "./report.ts";
import { openTools } from "./tools.ts";

const { values } = parseArgs({
  options: {
    lines: { type: "string", default: "50000" },
    rounds: { type: "string", default: "7" },
  },
});
const lines = Number(values.lines);
const TOOLS = 4;

async function ours(): Promise<Numbers> {
  await using host = await openTools("chatter", ["talk"], TOOLS);
  const { queue } = host.pipeline;
  const cpu = process.cpuUsage();
  const start = performance.now();
  const jobs = await Promise.all(
    Array.from({ length: TOOLS }, (_, n) =>
      queue.submit(`chatter-${n}`, { lines }, { action: "talk" }),
    ),
  );
  await Promise.all(jobs.map((job) => job.ended()));
  const counts = await Promise.all(
    jobs.map(async (job) => (await queue.getJobDiagnostics(job.id, { limit: lines * 2 })).length),
  );
  const seconds = (performance.now() - start) / 1_000;
  const { user, system } = process.cpuUsage(cpu);
  const kept = counts.reduce((sum, count) => sum + count, 0);
  return {
    "records a second": kept / seconds,
    "kept %": (kept / (lines * TOOLS)) * 100,
    "µs processor of the host": (user + system) / kept,
  };
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
await report.compare(
  {
    row: `${TOOLS} tools, ${lines} lines each`,
    rounds: Number(values.rounds),
    metrics: { "records a second": "more", "kept %": "more", "µs processor of the host": "less" },
  },
  { ours, "bare pipe to a file": pipe },
);
