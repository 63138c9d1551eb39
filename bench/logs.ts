/**
 * `cjm-ctl logs --job` on a million records: the query alone, and the whole command.
 *
 *     npm run build && node bench/logs.ts [rows]
 */
import { spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { DiagnosticsReader, DiagnosticsStore, type RecordFilter } from "../src/store/index.ts";

const ROWS = Number(process.argv[2] ?? 1_000_000);
const ROWS_PER_JOB = 100;
const FLUSH_EVERY = 10_000;
const ROUNDS = 200;
const LIMIT = 50;
const MAIN = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

/** The hard case: each record is of another job than the one before it, so that each block holds many. */
async function fill(path: string): Promise<void> {
  await using store = await DiagnosticsStore.open(path);
  const jobs = Math.ceil(ROWS / ROWS_PER_JOB);
  for (let index = 0; index < ROWS; index += 1) {
    store.appendRecord({
      ts: new Date(1_767_225_600_000 + index).toISOString(),
      workerSessionId: `s${index % 8}`,
      jobId: `job-${index % jobs}`,
      level: index % 100_000 === 99_999 ? "error" : "info",
      loggerName: "worker",
      message: `line ${index}`,
    });
    if (index % FLUSH_EVERY === 0) await store.flush();
  }
}

function quantile(sorted: readonly number[], share: number): string {
  const value = sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  return `${value.toFixed(2)} ms`;
}

function report(what: string, times: readonly number[]): void {
  const sorted = times.toSorted((a, b) => a - b);
  console.log(`${what}: p50 ${quantile(sorted, 0.5)}, p99 ${quantile(sorted, 0.99)}`);
}

const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
try {
  const path = join(folder, "diagnostics.db");
  await fill(path);
  const opened = DiagnosticsReader.open(path);
  if (opened === undefined) throw new Error(`${path} is missing`);
  await using reader = opened;
  const queryOf = async (
    what: string,
    filterOf: (index: number) => RecordFilter,
  ): Promise<void> => {
    const times: number[] = [];
    for (let index = 0; index < ROUNDS; index += 1) {
      const start = performance.now();
      const rows = await reader.queryRecords({
        ...filterOf(index),
        limit: LIMIT,
        descending: true,
      });
      if (rows.length === 0) throw new Error(`no rows of ${what}`);
      times.push(performance.now() - start);
    }
    report(`the newest ${LIMIT} of ${ROWS} rows: ${what}`, times);
  };
  await queryOf("all", () => ({}));
  await queryOf("of one job", (index) => ({
    jobId: `job-${(index * 7919) % Math.ceil(ROWS / ROWS_PER_JOB)}`,
  }));
  await queryOf("of one session", (index) => ({ workerSessionId: `s${index % 8}` }));
  await queryOf("of a rare level", () => ({ level: "error" }));

  const env = { ...process.env, CJM_DATA_DIR: folder, NO_COLOR: "1" };
  const commands = Array.from({ length: 10 }, (_, index) => {
    const start = performance.now();
    const { status } = spawnSync(process.execPath, [MAIN, "logs", "--job", `job-${index}`], {
      env,
    });
    if (status !== 0) throw new Error(`cjm-ctl ended with ${status}`);
    return performance.now() - start;
  });
  report("cjm-ctl logs --job, whole command", commands);
} finally {
  await rm(folder, { recursive: true, force: true });
}
