import { readdirSync, readFileSync } from "node:fs";

/** What a tree of processes uses at one moment. */
export interface TreeSample {
  readonly pids: number;
  readonly residentBytes: number;
  /** User and system time of live processes and of those they have waited for. */
  readonly cpuMs: number;
}

/** Type of the auxiliary vector's entry for the page size (linux/auxvec.h). */
const AT_PAGESZ = 6n;
const PAGE_BYTES = pageBytes();

/** arm64 kernels have pages of 4, 16 or 64 KiB. */
function pageBytes(): number {
  const vector = readFileSync("/proc/self/auxv");
  for (let offset = 0; offset + 16 <= vector.length; offset += 16) {
    if (vector.readBigUInt64LE(offset) === AT_PAGESZ) {
      return Number(vector.readBigUInt64LE(offset + 8));
    }
  }
  return 4_096;
}

/** Clock ticks of /proc are 100 a second on every Linux that Node runs on. */
const TICK_MS = 10;

/** Direct children of a process, of all its threads; empty once it is gone. */
export function childrenOf(pid: number): number[] {
  const tasks = listOrEmpty(`/proc/${pid}/task`);
  return tasks.flatMap((task) =>
    readOrEmpty(`/proc/${pid}/task/${task}/children`).split(" ").filter(Boolean).map(Number),
  );
}

/** The process and everything that descends from it. */
export function treeOf(root: number): number[] {
  const found = [root];
  // Grows while it is walked.
  for (const pid of found) found.push(...childrenOf(pid));
  return found;
}

/** Adds up the tree below `root`, which is counted too. */
export function sampleTree(root: number): TreeSample {
  let pids = 0;
  let residentBytes = 0;
  let cpuMs = 0;
  for (const pid of treeOf(root)) {
    const fields = statFields(pid);
    if (fields === undefined) continue;
    pids += Number(fields[17]);
    cpuMs += (Number(fields[11]) + Number(fields[12])) * TICK_MS;
    cpuMs += (Number(fields[13]) + Number(fields[14])) * TICK_MS;
    residentBytes += Number(fields[21]) * PAGE_BYTES;
  }
  return { pids, residentBytes, cpuMs };
}

/** True while the process exists and is not merely waiting to be reaped. */
export function isRunning(pid: number): boolean {
  const fields = statFields(pid);
  return fields !== undefined && fields[0] !== "Z" && fields[0] !== "X";
}

/** Fields of /proc/<pid>/stat from the state on; the name before it may hold spaces. */
function statFields(pid: number): string[] | undefined {
  const text = readOrEmpty(`/proc/${pid}/stat`);
  return text === "" ? undefined : text.slice(text.lastIndexOf(")") + 2).split(" ");
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}

function listOrEmpty(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
