import { readdirSync, readFileSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";

/** Who a process is, beyond a pid that may be given to another. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after boot at which it started. */
  readonly startTicks: number;
}

/** The process's identity now; undefined if there is none with this pid. */
export function identify(pid: number): ProcessIdentity | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The command name may hold spaces and parentheses; fields are counted after its last one.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { pid, startTicks: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

/** All descendants of `pid`, itself included, by the children lists of every thread. */
export function processTree(pid: number): number[] {
  const seen = new Set<number>();
  const pending = [pid];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    pending.push(...childrenOf(next));
  }
  return [...seen];
}

function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
      readFileSync(`/proc/${pid}/task/${thread}/children`, "utf8")
        .split(" ")
        .filter((child) => child.trim() !== "")
        .map(Number),
    );
  } catch {
    return [];
  }
}

/** True while a process with this identity exists and has not merely ended unreaped. */
export function isAlive(process: ProcessIdentity): boolean {
  try {
    const stat = readFileSync(`/proc/${process.pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] !== "Z" && fields[0] !== "X" && Number(fields[19]) === process.startTicks;
  } catch {
    return false;
  }
}

/** Sends SIGKILL to exactly this process; a stranger with the same pid is left alone. */
export function killExactly(target: ProcessIdentity): void {
  if (!isAlive(target)) return;
  try {
    process.kill(target.pid, "SIGKILL");
  } catch {
    // It ended in between.
  }
}

/** Every process whose environment has `name` with a value `accepts` says yes to. */
export async function processesWithVariable(
  name: string,
  accepts: (value: string) => boolean,
): Promise<ProcessIdentity[]> {
  if (process.platform !== "linux") return [];
  const entries = await readdir("/proc");
  const pids = entries.filter((entry) => /^\d+$/u.test(entry)).map(Number);
  const found = await Promise.all(
    pids.map(async (pid) => {
      const before = identify(pid);
      const value = await environmentVariable(pid, name);
      return before !== undefined && value !== undefined && accepts(value) ? [before] : [];
    }),
  );
  return found.flat();
}

/** An environment that cannot be read belongs to someone else: never ours to touch. */
async function environmentVariable(pid: number, name: string): Promise<string | undefined> {
  try {
    const environ = await readFile(`/proc/${pid}/environ`, "utf8");
    const entry = environ.split("\0").find((member) => member.startsWith(`${name}=`));
    return entry?.slice(name.length + 1);
  } catch {
    return undefined;
  }
}
