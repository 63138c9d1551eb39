/**
 * Journal rate against the limit of this machine: the same rows through the store and through bare
 * better-sqlite3 on the same schema, in turn, in one process.
 *
 *     node bench/journal.ts [rows]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { openJournalDatabase, type JournalEntry } from "../src/store/index.ts";

const ROWS = Number(process.argv[2] ?? 20_000);
const ROUNDS = 3;
/** Rows that share a commit. */
const GROUPS = [1, 4, 64];

const COLUMNS = [
  "event_id",
  "ts",
  "event_type",
  "run_id",
  "job_id",
  "composition_id",
  "node_id",
  "capability_instance_id",
  "capability_name",
  "config_hash",
  "task_name",
  "method",
  "worker_session_id",
  "actor",
  "worker_reported",
  "payload",
];

const event = (index: number): JournalEntry & { readonly jobId: string } => ({
  eventType: "state_transition",
  jobId: `job-${index >> 2}`,
  compositionId: "composition-1",
  nodeId: `node-${index >> 2}`,
  capabilityInstanceId: "sandbox",
  actor: "bench",
  payload: { from: "pending", to: "running" },
});

async function ours(path: string, rows: number, group: number): Promise<number> {
  await using store = await openJournalDatabase(path);
  const start = performance.now();
  for (let index = 0; index < rows; index += group) {
    await Promise.all(
      Array.from({ length: group }, (_, offset) =>
        store.stage([{ op: "journal.append", event: event(index + offset) }]),
      ),
    );
  }
  return rows / ((performance.now() - start) / 1000);
}

async function bare(path: string, rows: number, group: number): Promise<number> {
  // The schema is ours; what is measured is the bare inserts.
  await (await openJournalDatabase(path))[Symbol.asyncDispose]();
  const sqlite = new BetterSqlite3(path);
  sqlite.pragma("synchronous = FULL");
  sqlite.pragma("cache_size = -16000");
  const insert = sqlite.prepare(
    `insert into journal (${COLUMNS.join()}) values (${COLUMNS.map(() => "?").join()})`,
  );
  const payload = JSON.stringify({ from: "pending", to: "running" });
  const start = performance.now();
  for (let index = 0; index < rows; index += group) {
    sqlite.exec("BEGIN IMMEDIATE");
    for (let offset = 0; offset < group; offset += 1) {
      const { jobId } = event(index + offset);
      const row = [
        crypto.randomUUID(),
        new Date().toISOString(),
        "state_transition",
        null,
        jobId,
        "composition-1",
        jobId.replace("job", "node"),
        "sandbox",
        null,
        null,
        null,
        null,
        null,
        "bench",
        0,
        payload,
      ];
      insert.run(row);
    }
    sqlite.exec("COMMIT");
  }
  const rate = rows / ((performance.now() - start) / 1000);
  sqlite.close();
  return rate;
}

const median = (values: readonly number[]): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

for (const group of GROUPS) {
  const rates: { ours: number[]; bare: number[] } = { ours: [], bare: [] };
  for (let round = 0; round < ROUNDS; round += 1) {
    const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
    const rows = Math.min(ROWS, group * 2_000);
    rates.bare.push(await bare(join(folder, "bare.db"), rows, group));
    rates.ours.push(await ours(join(folder, "ours.db"), rows, group));
    await rm(folder, { recursive: true });
  }
  const [own, limit] = [median(rates.ours), median(rates.bare)];
  console.log(
    `${String(group).padStart(3)} rows a commit: ours ${own.toFixed(0)}/s, bare ${limit.toFixed(0)}/s, ratio ${(own / limit).toFixed(2)}`,
  );
}
