import { execFile } from "node:child_process";
import { promisify } from "node:util";
import pidusage from "pidusage";
import { ProcReader, type ProcessReader, type ProcessReading } from "./process-reader.ts";

const run = promisify(execFile);

/** For systems without `/proc`: the tree from `ps`, sizes and times from pidusage. */
export class PidusageReader implements ProcessReader {
  readonly namespace = null;
  #parents: ReadonlyMap<number, number> = new Map();

  async tree(rootPid: number): Promise<readonly ProcessReading[]> {
    const { stdout } = await run("ps", ["-A", "-o", "pid=,ppid="]);
    this.#parents = parseParents(stdout);
    return await read(descendants(rootPid, this.#parents));
  }

  async reread(known: readonly ProcessReading[]): Promise<readonly ProcessReading[]> {
    return await read(known.map(({ pid }) => pid));
  }

  parent(pid: number): number | undefined {
    return this.#parents.get(pid);
  }

  namespacePids(): readonly number[] {
    return [];
  }

  cgroup(): string | null {
    return null;
  }

  pssBytes(): Promise<number | null> {
    return Promise.resolve(null);
  }
}

async function read(pids: readonly number[]): Promise<readonly ProcessReading[]> {
  if (pids.length === 0) return [];
  const usage = await pidusage([...pids]).catch(() => ({}));
  return Object.values(usage)
    .filter((stat) => stat !== null)
    .map(({ pid, ppid, memory, ctime, elapsed, timestamp }) => ({
      pid,
      parent: ppid,
      startId: String(Math.round((timestamp - elapsed) / 1000)),
      rssBytes: memory,
      cpuMs: ctime,
    }));
}

/** The reader that fits this system. */
export function openProcessReader(): ProcessReader {
  return process.platform === "linux" ? new ProcReader() : new PidusageReader();
}

/** `pid ppid` lines as `ps` prints them. */
export function parseParents(text: string): ReadonlyMap<number, number> {
  const parents = new Map<number, number>();
  for (const line of text.split("\n")) {
    const [pid, parent] = line.trim().split(/\s+/u).map(Number);
    if (Number.isInteger(pid) && Number.isInteger(parent)) parents.set(pid ?? 0, parent ?? 0);
  }
  return parents;
}

function descendants(rootPid: number, parents: ReadonlyMap<number, number>): number[] {
  if (!parents.has(rootPid)) return [];
  const found = new Set([rootPid]);
  const children = Map.groupBy(parents.keys(), (pid) => parents.get(pid) ?? 0);
  // A Set may grow while it is walked, and never holds a pid twice.
  for (const pid of found) for (const child of children.get(pid) ?? []) found.add(child);
  return [...found];
}
