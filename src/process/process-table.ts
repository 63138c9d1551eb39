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
    return { pid, startTicks: Number(statFields(pid)[19]) };
  } catch {
    return undefined;
  }
}

/** Fields of the process's `stat` from its state on (proc(5) counts that as the third). */
function statFields(pid: number): string[] {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The command name may hold spaces and parentheses; fields are counted after its last one.
  return stat.slice(stat.lastIndexOf(")") + 2).split(" ");
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
    const fields = statFields(process.pid);
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

/** Looks are repeated while processes ended under them, but not for ever: others may start some without end. */
const MAX_LOOKS = 5;
/** A process that starts one program after another shows its environment a third of the time. */
const MAX_READS = 100;

/** Every process whose environment has `name` with a value `accepts` says yes to. */
export async function processesWithVariable(
  name: string,
  accepts: (value: string) => boolean,
): Promise<ProcessIdentity[]> {
  if (process.platform !== "linux") return [];
  const found = new Map<number, ProcessIdentity>();
  for (let look = 0; look < MAX_LOOKS; look += 1) {
    const entries = await readdir("/proc");
    const pids = entries.filter((entry) => /^\d+$/u.test(entry)).map(Number);
    const isStill = await Promise.all(
      pids.map(async (pid) => {
        const before = identify(pid);
        const environment = await environmentOf(pid);
        if (before === undefined || environment === undefined) return false;
        if (hasVariable(environment, name, accepts)) found.set(pid, before);
        return true;
      }),
    );
    // One that ended before it was read may have left children that were not listed yet.
    if (isStill.every(Boolean)) break;
  }
  return [...found.values()];
}

function hasVariable(
  environment: string,
  name: string,
  accepts: (value: string) => boolean,
): boolean {
  const entry = environment.split("\0").find((member) => member.startsWith(`${name}=`));
  return entry !== undefined && accepts(entry.slice(name.length + 1));
}

/**
 * The environment a process was started with, undefined if it has ended; one that cannot be read
 * belongs to someone else: never ours to touch. A process that is just starting a program shows
 * none for a moment, so nothing is read again.
 */
async function environmentOf(pid: number): Promise<string | undefined> {
  try {
    for (let reads = 0; reads < MAX_READS; reads += 1) {
      const environment = await readFile(`/proc/${pid}/environ`, "utf8");
      if (environment !== "" || !mayHaveEnvironment(pid)) return environment;
    }
    return "";
  } catch (error) {
    return isGone(error) ? undefined : "";
  }
}

/** Threads of the kernel and the dead that nobody has reaped never show one. */
function mayHaveEnvironment(pid: number): boolean {
  const fields = statFields(pid);
  return fields[0] !== "Z" && fields[0] !== "X" && (Number(fields[6]) & KERNEL_THREAD) === 0;
}

/** PF_KTHREAD of linux/sched.h. */
const KERNEL_THREAD = 0x20_00_00;

function isGone(error: unknown): boolean {
  return (
    error instanceof Error && "code" in error && (error.code === "ENOENT" || error.code === "ESRCH")
  );
}
