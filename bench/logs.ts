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
import BetterSqlite3 from "better-sqlite3";
import { DiagnosticsReader, DiagnosticsStore } from "../src/store/index.ts";

const ROWS = Number(process.argv[2] ?? 1_000_000);
const ROWS_PER_JOB = 100;
const ROUNDS = 200;
const LIMIT = 50;
const MAIN = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));

/** Jobs take turns, as when several run at once: a job's rows lie apart. */
async function fill(path: string): Promise<void> {
  await (await DiagnosticsStore.open(path))[Symbol.asyncDispose]();
  const database = new BetterSqlite3(path);
  const insert = database.prepare(
    "insert into records (ts, worker_session_id, job_id, level, logger_name, message) values (?, ?, ?, ?, ?, ?)",
  );
  const jobs = Math.ceil(ROWS / ROWS_PER_JOB);
  database.transaction(() => {
    for (let index = 0; index < ROWS; index += 1) {
      const ts = new Date(1_767_225_600_000 + index).toISOString();
      insert.run(ts, `s${index % 8}`, `job-${index % jobs}`, "info", "worker", `line ${index}`);
    }
  })();
  database.close();
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
  const query = async (index: number): Promise<number> => {
    const start = performance.now();
    const jobId = `job-${(index * 7919) % Math.ceil(ROWS / ROWS_PER_JOB)}`;
    const rows = await reader.queryRecords({ jobId, limit: LIMIT, descending: true });
    if (rows.length === 0) throw new Error(`no rows of ${jobId}`);
    return performance.now() - start;
  };
  const queries: number[] = [];
  for (let index = 0; index < ROUNDS; index += 1) queries.push(await query(index));
  report(`query of one job's newest ${LIMIT} of ${ROWS} rows`, queries);

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
