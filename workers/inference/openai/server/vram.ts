import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { promisify } from "node:util";

const QUERY = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"];
/** A driver that hangs must not hold a release up. */
const QUERY_MS = 5000;
const ROW = /^(\d+), (?:(\d+)|\[.+\])$/u;

interface Row {
  readonly pid: number;
  /** Undefined where the driver does not tell, as under WSL. */
  readonly mib: number | undefined;
}

/**
 * What a program and its children hold of the GPUs, in MiB, by `nvidia-smi`: as a program of its own,
 * so that a driver call that crashes ends nothing else.
 *
 * Undefined is an honest answer: there is no `nvidia-smi`, it does not tell, or it never named a process
 * of the program (a driver may give pids of outside the PID namespace in which this runs).
 */
export class VramMeter {
  readonly #pids = new Set<number>();
  #hasSeen = false;

  /** `root`: the program, if it runs; what it was known to consist of before is looked for too. */
  async measure(root: number | undefined): Promise<number | undefined> {
    if (root !== undefined) for (const pid of await treeOf(root)) this.#pids.add(pid);
    const rows = (await query())?.filter(({ pid }) => this.#pids.has(pid));
    if (rows === undefined || (rows.length === 0 && !this.#hasSeen)) return undefined;
    let sum = 0;
    for (const { mib } of rows) {
      if (mib === undefined) return undefined;
      sum += mib;
    }
    this.#hasSeen = true;
    return sum;
  }
}

async function query(): Promise<readonly Row[] | undefined> {
  const options = { timeout: QUERY_MS, killSignal: "SIGKILL" } as const;
  try {
    const { stdout } = await promisify(execFile)("nvidia-smi", QUERY, options);
    const rows = stdout
      .split("\n")
      .filter((line) => line.trim() !== "")
      .map((line) => ROW.exec(line.trim()));
    if (rows.includes(null)) return undefined;
    return rows.map((row) => ({
      pid: Number(row?.[1]),
      mib: row?.[2] === undefined ? undefined : Number(row[2]),
    }));
  } catch {
    return undefined;
  }
}

/** The program, everything in its process group, and all their descendants. */
async function treeOf(root: number): Promise<ReadonlySet<number>> {
  const tree = new Set([root]);
  const all = await processes();
  for (let size = 0; size < tree.size;) {
    size = tree.size;
    for (const { pid, parent, group } of all) {
      if (group === root || tree.has(parent)) tree.add(pid);
    }
  }
  return tree;
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  readonly group: number;
}

async function processes(): Promise<readonly Process[]> {
  const names = await readdir("/proc").catch(() => []);
  const found = names.filter((name) => /^\d+$/u.test(name)).map(processOf);
  return (await Promise.all(found)).filter((one) => one !== undefined);
}

async function processOf(pid: string): Promise<Process | undefined> {
  // Ended meanwhile.
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
  // The program's name, in parentheses, may hold anything; behind it: state, parent, group.
  const [, parent, group] = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  if (parent === undefined || group === undefined) return undefined;
  return { pid: Number(pid), parent: Number(parent), group: Number(group) };
}
