import { execFile, execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { promisify } from "node:util";

interface ProcessRow {
  readonly pid: number;
  readonly ppid: number;
  /** Processor time since its start. */
  readonly cpuSeconds: number;
  readonly rssMb: number;
}

export interface TreeStats {
  readonly pid: number;
  /** Of one core, since the last time it was asked for; null the first time. */
  readonly cpu_percent: number | null;
  readonly memory_rss_mb: number;
  readonly subtree_pids: readonly number[];
}

/** Linux reports times in ticks of 1/100 s and memory in pages on every machine it runs Node on. */
const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;
const MB = 1_000_000;
const PS_ARGUMENTS = ["-axo", "pid=,ppid=,time=,rss="];

let previous: { readonly at: number; readonly cpuSeconds: number } | undefined;

/** Sums over this process and everything that descends from it. */
export async function treeStats(): Promise<TreeStats> {
  const tree = treeOf(process.pid, await allProcesses());
  const at = performance.now();
  const cpuSeconds = sum(tree.map((row) => row.cpuSeconds));
  const percent =
    previous === undefined
      ? null
      : Math.max(0, ((cpuSeconds - previous.cpuSeconds) / (at - previous.at)) * 1000 * 100);
  previous = { at, cpuSeconds };
  return {
    pid: process.pid,
    cpu_percent: percent,
    memory_rss_mb: sum(tree.map((row) => row.rssMb)),
    subtree_pids: tree.map((row) => row.pid),
  };
}

/**
 * Kills everything that descends from this process, and what it left behind under another parent
 * but with the mark of this worker session. Synchronous: nothing runs after the host's death.
 */
export function killDescendants(sessionId: string | undefined): void {
  const rows = process.platform === "linux" ? readProc() : readPs(runPs());
  const doomed = new Set(treeOf(process.pid, rows).map((row) => row.pid));
  if (sessionId !== undefined && process.platform === "linux") {
    for (const { pid } of rows) if (hasMark(pid, sessionId)) doomed.add(pid);
  }
  doomed.delete(process.pid);
  for (const pid of doomed) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // Ended by itself in the meantime.
    }
  }
}

async function allProcesses(): Promise<ProcessRow[]> {
  if (process.platform === "linux") return readProc();
  const { stdout } = await promisify(execFile)("ps", PS_ARGUMENTS);
  return readPs(stdout);
}

function treeOf(root: number, rows: readonly ProcessRow[]): ProcessRow[] {
  const children = Map.groupBy(rows, (row) => row.ppid);
  const tree = rows.filter((row) => row.pid === root);
  for (const row of tree) tree.push(...(children.get(row.pid) ?? []));
  return tree;
}

function readProc(): ProcessRow[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/u.test(name))
    .map((name) => parseStat(readOrEmpty(`/proc/${name}/stat`)))
    .filter((row) => row !== undefined);
}

/** Fields after the name, which stands in parentheses and may hold anything (man 5 proc). */
function parseStat(stat: string): ProcessRow | undefined {
  const end = stat.lastIndexOf(")");
  if (end < 0) return undefined;
  const fields = stat
    .slice(end + 2)
    .split(" ")
    .map(Number);
  const [ppid = 0, userTicks = 0, systemTicks = 0, pages = 0] = [1, 11, 12, 21].map(
    (field) => fields[field] ?? 0,
  );
  return {
    pid: Number.parseInt(stat, 10),
    ppid,
    cpuSeconds: (userTicks + systemTicks) / TICKS_PER_SECOND,
    rssMb: (pages * PAGE_BYTES) / MB,
  };
}

function hasMark(pid: number, sessionId: string): boolean {
  const environ = readOrEmpty(`/proc/${pid}/environ`).split("\0");
  return environ.includes(`CJM_WORKER_SESSION_ID=${sessionId}`);
}

/** A process that ended, or that belongs to someone else, reads as nothing. */
function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function runPs(): string {
  return execFileSync("ps", PS_ARGUMENTS, { encoding: "utf8" });
}

function readPs(output: string): ProcessRow[] {
  return output
    .split("\n")
    .map((line) => line.trim().split(/\s+/u))
    .filter((cells) => cells.length === 4)
    .map(([pid = "", ppid = "", time = "", rssKib = ""]) => ({
      pid: Number(pid),
      ppid: Number(ppid),
      cpuSeconds: parseClock(time),
      rssMb: (Number(rssKib) * 1024) / MB,
    }));
}

/** `[[dd-]hh:]mm:ss.cc` as seconds. */
function parseClock(time: string): number {
  const [clock = "", days = "0"] = time.split("-").toReversed();
  const seconds = clock.split(":").reduce((total, part) => total * 60 + Number(part), 0);
  return Number(days) * 86_400 + seconds;
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, value) => total + value, 0);
}
