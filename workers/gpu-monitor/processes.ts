import { readdirSync, readFileSync, readlinkSync } from "node:fs";

/** What `/proc/<pid>/stat` says about one process. */
export interface ProcessFacts {
  readonly parent: number;
  readonly name: string;
  /** Exited but not reaped: it holds no memory any more. */
  readonly isZombie: boolean;
  /** Clock ticks since boot; with the pid it names one process for ever. */
  readonly startTicks: string;
}

/** Undefined where there is no such process, or no `/proc`. */
export function processFacts(pid: number): ProcessFacts | undefined {
  const text = readText(`/proc/${pid}/stat`);
  // The name is in brackets and may hold spaces and brackets itself.
  const nameEnd = text?.lastIndexOf(")") ?? -1;
  if (text === undefined || nameEnd < 0) return undefined;
  const fields = text.slice(nameEnd + 2).split(" ");
  return {
    parent: Number(fields[1]),
    name: text.slice(text.indexOf("(") + 1, nameEnd),
    isZombie: fields[0] === "Z" || fields[0] === "X",
    startTicks: fields[19] ?? "",
  };
}

/** True while the process exists and has not exited. Works on systems without `/proc` too. */
export function isAlive(pid: number): boolean {
  const facts = processFacts(pid);
  if (facts !== undefined) return !facts.isZombie;
  if (process.platform === "linux") return false;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
}

/** Identity of a PID namespace, `pid:[4026531836]`; null where it cannot be read. */
export function pidNamespace(pid: number | "self" = "self"): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return null;
  }
}

/**
 * The pid in our own namespace of process `pid` of namespace `namespace`.
 *
 * `NSpid` of `/proc/<pid>/status` lists a process's numbers from our namespace inwards; its last one
 * belongs to the namespace the process lives in.
 */
export function pidFromNamespace(pid: number, namespace: string): number | undefined {
  if (namespace === pidNamespace()) return pid;
  for (const entry of listPids()) {
    const numbers = namespacePids(entry);
    if (numbers.at(-1) === pid && pidNamespace(entry) === namespace) return entry;
  }
  return undefined;
}

/** Every number process `pid` has, from our namespace to its own. */
export function namespacePids(pid: number): readonly number[] {
  const line = /^NSpid:\s*(?<numbers>[\d\s]+)$/mu.exec(readText(`/proc/${pid}/status`) ?? "");
  return (line?.groups?.["numbers"] ?? "").trim().split(/\s+/u).map(Number);
}

/** Whether `pid` is `ancestor` or descends from it; null where the process cannot be seen. */
export function descendsFrom(pid: number, ancestor: number): boolean | null {
  let current = pid;
  // Deeper trees than this are loops made by pids that were reused while we looked.
  for (let depth = 0; depth < 64; depth += 1) {
    if (current === ancestor) return true;
    const facts = processFacts(current);
    if (facts === undefined) return depth === 0 ? null : false;
    if (facts.parent <= 1) return false;
    current = facts.parent;
  }
  return false;
}

function listPids(): number[] {
  try {
    return readdirSync("/proc")
      .map(Number)
      .filter((pid) => Number.isInteger(pid));
  } catch {
    return [];
  }
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return undefined;
  }
}
