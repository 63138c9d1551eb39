/**
 * Journal rate against the limit of this machine: the same rows through the store and through bare
 * better-sqlite3 on the same schema, in turn, in one process.
 *
 *     npm run bench -- journal [rows]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import BetterSqlite3 from "better-sqlite3";
import { openJournalDatabase, type JournalEntry } from "../src/store/index.ts";
import { runOriginal } from "./original.ts";
import { costOf, type Numbers, Report } from "./report.ts";

const ROWS = Number(process.argv[2] ?? 20_000);
const ROUNDS = 7;
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

async function ours(path: string, rows: number, group: number): Promise<Numbers> {
  await using store = await openJournalDatabase(path);
  const cost = await costOf(async () => {
    for (let index = 0; index < rows; index += group) {
      await Promise.all(
        Array.from({ length: group }, (_, offset) =>
          store.stage([{ op: "journal.append", event: event(index + offset) }]),
        ),
      );
    }
  });
  return rate(cost, rows);
}

function rate({ seconds, cpu }: { seconds: number; cpu: number }, rows: number): Numbers {
  return { "rows a second": rows / seconds, "µs processor": (cpu / rows) * 1e6 };
}

/** In a folder of its own, which is gone afterwards. */
async function inFolder(work: (path: string) => Promise<Numbers>): Promise<Numbers> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
  try {
    return await work(join(folder, "journal.db"));
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function bare(path: string, rows: number, group: number): Promise<Numbers> {
  // The schema is ours; what is measured is the bare inserts.
  await (await openJournalDatabase(path))[Symbol.asyncDispose]();
  const sqlite = new BetterSqlite3(path);
  sqlite.pragma("synchronous = FULL");
  sqlite.pragma("cache_size = -16000");
  const insert = sqlite.prepare(
    `insert into journal (${COLUMNS.join()}) values (${COLUMNS.map(() => "?").join()})`,
  );
  const payload = JSON.stringify({ from: "pending", to: "running" });
  const cost = await costOf(() => {
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
  });
  sqlite.close();
  return rate(cost, rows);
}

using report = new Report();
for (const group of GROUPS) {
  const rows = Math.min(ROWS, group * 2_000);
  await report.compare(
    {
      row: `${group} a commit`,
      rounds: ROUNDS,
      metrics: { "rows a second": "more", "µs processor": "less" },
      goals: { bare: { "rows a second": 0.8 } },
    },
    {
      ours: () => inFolder((path) => ours(path, rows, group)),
      bare: () => inFolder((path) => bare(path, rows, group)),
      // It commits every row.
      ...(group === 1 && {
        original: async () => {
          const { journal_appends_per_s: perSecond = Number.NaN } = await runOriginal(20);
          return { "rows a second": perSecond };
        },
      }),
    },
  );
}
