import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type JournalEvent, openJournalReader } from "../../src/store/index.ts";
import { newDataDir } from "./queue-host.ts";

const PROGRAM = fileURLToPath(new URL("crash-host.ts", import.meta.url));

export type Kill =
  | {
      readonly when: "before" | "after" | "full" | "read-only" | "past" | "future";
      readonly unit: number;
    }
  | { readonly afterMs: number };

export interface HostRun {
  readonly signal: NodeJS.Signals | null;
  /** What it printed; undefined if it was killed. */
  readonly printed: unknown;
}

/** Where a host's data lie, if that matters. */
export interface CrashDisk {
  readonly path: string;
  /** File that makes the disk read-only when it is written to. */
  readonly trigger?: string;
  /** Called between two lives. */
  repair?(): void;
}

/** One life of the reference host on this folder. */
export async function runHost(
  dataDir: string,
  kill?: Kill,
  {
    oracle = oracleOf(dataDir),
    trigger = "",
  }: { oracle?: string; trigger?: string | undefined } = {},
): Promise<HostRun> {
  const at = kill !== undefined && "when" in kill ? [kill.when, String(kill.unit)] : [];
  const child = spawn(process.execPath, [PROGRAM, dataDir, oracle, ...at], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, CJM_DISK_TRIGGER: trigger },
  });
  const output = Promise.all([text(child.stdout), text(child.stderr), once(child, "exit")]);
  const timer =
    kill !== undefined && "afterMs" in kill
      ? setTimeout(() => child.kill("SIGKILL"), kill.afterMs)
      : undefined;
  const [stdout, stderr, [code, signal]] = (await output) as [
    string,
    string,
    [number, NodeJS.Signals],
  ];
  clearTimeout(timer);
  // New work is refused while the disk is full; this host then gives up, and the next one goes on.
  const isRefused = stderr.includes("JOURNAL_UNAVAILABLE");
  if (signal === null && code !== 0 && !isRefused) throw new Error(`The host failed: ${stderr}`);
  return { signal, printed: stdout === "" ? undefined : JSON.parse(stdout) };
}

interface OracleLine {
  readonly node: string;
  readonly job: string;
  readonly attempt: number;
}

/** What the workers wrote down, outside the product. */
export async function oracleLines(
  dataDir: string,
  oracle = oracleOf(dataDir),
): Promise<readonly OracleLine[]> {
  const lines = await readFile(oracle, "utf8").catch(() => "");
  return lines
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as OracleLine);
}

export async function journalOf(dataDir: string): Promise<readonly JournalEvent[]> {
  await using store = await openJournalReader(join(dataDir, "journal.db"));
  return (await store?.queryJournal()) ?? [];
}

/** Ids of jobs that have a terminal row, once for each row. */
export function terminalJobs(rows: readonly JournalEvent[]): string[] {
  return rows.flatMap(({ eventType, jobId, payload }) => {
    const isOver = ["completed", "failed", "cancelled"].includes(String(payload["to"]));
    return eventType === "state_transition" && isOver && jobId !== null ? [jobId] : [];
  });
}

/**
 * Kills a host as told, resumes it, and checks by the oracle: what it printed, that nothing that was
 * over ran again, and that every job has exactly one terminal row.
 *
 * @returns what is wrong; empty if all is well, and whether the kill came at all.
 */
export async function crashAndResume(
  kills: readonly Kill[],
  expected: unknown,
  disk?: CrashDisk,
): Promise<{ readonly problems: readonly string[]; readonly wasKilled: boolean }> {
  const dataDir =
    disk === undefined ? await newDataDir() : await mkdtemp(join(disk.path, "cjm-crash-"));
  // What it knows must not be lost with the disk.
  const folder = await mkdtemp(join(tmpdir(), "cjm-oracle-"));
  const oracle = join(folder, "oracle.jsonl");
  try {
    const problems: string[] = [];
    let wasKilled = false;
    let printed: unknown;
    for (const kill of [...kills, undefined]) {
      const over = new Set(terminalJobs(await journalOf(dataDir)));
      const linesBefore = (await oracleLines(dataDir, oracle)).length;
      const run = await runHost(dataDir, kill, { oracle, trigger: disk?.trigger });
      disk?.repair?.();
      wasKilled ||= run.signal === "SIGKILL";
      printed = run.printed;
      const again = (await oracleLines(dataDir, oracle))
        .slice(linesBefore)
        .filter(({ job }) => over.has(job));
      problems.push(...again.map(({ node }) => `${node} was over and ran again`));
    }
    if (JSON.stringify(printed) !== JSON.stringify(expected)) {
      problems.push(`another end: ${JSON.stringify(printed)}`);
    }
    const terminal = terminalJobs(await journalOf(dataDir));
    const jobs = new Set((await oracleLines(dataDir, oracle)).map(({ job }) => job));
    if (new Set(terminal).size !== terminal.length) problems.push("a job has two terminal rows");
    for (const job of jobs) {
      if (!terminal.includes(job)) problems.push(`job ${job} ran and has no terminal row`);
    }
    return { problems, wasKilled };
  } finally {
    for (const path of [dataDir, folder]) await rm(path, { recursive: true, force: true });
  }
}

function oracleOf(dataDir: string): string {
  return join(dataDir, "oracle.jsonl");
}
