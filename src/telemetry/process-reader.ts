import { closeSync, openSync, readdirSync, readlinkSync, readSync } from "node:fs";
import { readFile } from "node:fs/promises";

/** One process at one moment. */
export interface ProcessReading {
  readonly pid: number;
  readonly parent: number;
  /** With the pid it names one process for ever. */
  readonly startId: string;
  readonly rssBytes: number;
  /** User and system time of all its threads so far, without children. */
  readonly cpuMs: number;
}

/** What telemetry asks the operating system about processes. */
export interface ProcessReader {
  /** PID namespace this host lives in; null where there are none. */
  readonly namespace: string | null;
  /** The process and all that descend from it; empty when it is gone. */
  tree(rootPid: number): readonly ProcessReading[] | Promise<readonly ProcessReading[]>;
  /** Those of a tree that still run, as they are now; new children are not looked for. */
  reread(
    known: readonly ProcessReading[],
  ): readonly ProcessReading[] | Promise<readonly ProcessReading[]>;
  /** Undefined for a process that cannot be seen. */
  parent(pid: number): number | undefined;
  /** The process's numbers, from our PID namespace to its own. */
  namespacePids(pid: number): readonly number[];
  cgroup(pid: number): string | null;
  /** Resident memory with shared pages divided among their users; null where it cannot be read. */
  pssBytes(pid: number): Promise<number | null>;
}

/** The kernel reports times in these units to user space on every architecture Node runs on. */
const MS_PER_TICK = 10;

/**
 * Reads `/proc` synchronously: a read there is served from memory in microseconds, while each
 * asynchronous one takes a trip through the thread pool that costs several times as much CPU.
 */
export class ProcReader implements ProcessReader {
  readonly namespace: string | null;
  readonly #root: string;
  #pageBytes: number;
  #buffer = Buffer.allocUnsafe(4096);

  /** `root` is where the proc file system is. */
  constructor(root = "/proc") {
    this.#root = root;
    this.namespace = readLink(`${root}/self/ns/pid`);
    this.#pageBytes = 1;
    const pages = this.#stat(process.pid)?.rssBytes ?? 0;
    // Node has no call for the page size; it knows our size in bytes and the kernel gives pages.
    const exact = pages === 0 ? 4096 : process.memoryUsage.rss() / pages;
    this.#pageBytes = 2 ** Math.round(Math.log2(exact));
  }

  tree(rootPid: number): readonly ProcessReading[] {
    const found: ProcessReading[] = [];
    const seen = new Set([rootPid]);
    const queue = [rootPid];
    for (let pid = queue.pop(); pid !== undefined; pid = queue.pop()) {
      const reading = this.#stat(pid);
      if (reading === undefined) continue;
      found.push(reading);
      for (const child of this.#children(pid)) {
        if (seen.has(child)) continue;
        seen.add(child);
        queue.push(child);
      }
    }
    return found;
  }

  reread(known: readonly ProcessReading[]): readonly ProcessReading[] {
    const found: ProcessReading[] = [];
    for (const { pid, startId } of known) {
      const reading = this.#stat(pid);
      if (reading?.startId === startId) found.push(reading);
    }
    return found;
  }

  parent(pid: number): number | undefined {
    return this.#stat(pid)?.parent;
  }

  namespacePids(pid: number): readonly number[] {
    const line = /^NSpid:\s*(?<numbers>[\d\s]+)$/mu.exec(this.#read(`${pid}/status`) ?? "");
    const numbers = line?.groups?.["numbers"]?.trim() ?? "";
    return numbers === "" ? [] : numbers.split(/\s+/u).map(Number);
  }

  /** The path in the unified hierarchy, or that of the first legacy controller. */
  cgroup(pid: number): string | null {
    const lines = (this.#read(`${pid}/cgroup`) ?? "").split("\n");
    const unified = lines.find((line) => line.startsWith("0::"));
    return (unified ?? lines[0] ?? "").split(":").slice(2).join(":") || null;
  }

  async pssBytes(pid: number): Promise<number | null> {
    try {
      // Walks the page tables, which for a large process takes long enough to be felt.
      const text = await readFile(`${this.#root}/${pid}/smaps_rollup`, "latin1");
      const kib = /^Pss:\s*(?<kib>\d+) kB$/mu.exec(text)?.groups?.["kib"];
      return kib === undefined ? null : Number(kib) * 1024;
    } catch {
      return null;
    }
  }

  /** A child forked by another thread than the main one is listed under that thread only. */
  *#children(pid: number): Generator<number> {
    for (const thread of readFolder(`${this.#root}/${pid}/task`)) {
      const text = this.#read(`${pid}/task/${thread}/children`);
      if (text === undefined || text === "") continue;
      for (const child of text.trim().split(" ")) yield Number(child);
    }
  }

  #stat(pid: number): ProcessReading | undefined {
    const text = this.#read(`${pid}/stat`);
    // The name is in brackets and may hold spaces and brackets itself.
    const nameEnd = text?.lastIndexOf(")") ?? -1;
    if (text === undefined || nameEnd < 0) return undefined;
    const fields = text.slice(nameEnd + 2).split(" ");
    // Exited and waiting to be reaped: it holds nothing and has no children.
    if (fields[0] === "Z" || fields[0] === "X") return undefined;
    return {
      pid,
      parent: Number(fields[1]),
      startId: fields[19] ?? "",
      rssBytes: Number(fields[21]) * this.#pageBytes,
      cpuMs: (Number(fields[11]) + Number(fields[12])) * MS_PER_TICK,
    };
  }

  #read(path: string): string | undefined {
    let file: number;
    try {
      file = openSync(`${this.#root}/${path}`, "r");
    } catch {
      return undefined;
    }
    try {
      let length = 0;
      for (;;) {
        const count = readSync(file, this.#buffer, length, this.#buffer.length - length, length);
        length += count;
        if (count === 0 || length < this.#buffer.length) break;
        const larger = Buffer.allocUnsafe(this.#buffer.length * 2);
        this.#buffer.copy(larger);
        this.#buffer = larger;
      }
      return this.#buffer.toString("latin1", 0, length);
    } catch {
      return undefined;
    } finally {
      closeSync(file);
    }
  }
}

function readFolder(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

function readLink(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}
