import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmdirSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { rmdir } from "node:fs/promises";
import { join } from "node:path";
import { INIT_PROCESSES } from "./jail-init.ts";
import type { Limits } from "./policy.ts";

/** What the kernel has counted for one jail; undefined where this kernel does not count it. */
export interface CgroupReading {
  readonly oomKills: number;
  readonly pidsRefused: number;
  readonly peakBytes: number | undefined;
  readonly cpuMs: number | undefined;
}

type Controller = "memory" | "pids" | "cpuacct";

/** Where jails may get a cgroup: one folder per controller (v1), the same for all (v2). */
export interface CgroupParent {
  readonly version: 1 | 2;
  readonly folders: Readonly<Partial<Record<Controller, string>>>;
}

/** The parent for jails, or the reason why there is none. */
export type CgroupSearch =
  { readonly parent: CgroupParent } | { readonly parent: null; readonly reason: string };

/** Processes in a jail's cgroup that are ours: the init processes, and the backend's that waits for them. */
const OWN_PROCESSES = INIT_PROCESSES + 1;

const PREFIX = "cjm-jail-";
const MB = 1_048_576;

/** Looks for a cgroup under our own in which a jail's can be made. */
export function findCgroupParent(explicit?: string): CgroupSearch {
  if (explicit !== undefined) return verified(unifiedParent(explicit));
  const own = ownCgroups();
  const version1 = versionOneParent(own);
  if (version1.folders.memory !== undefined) return verified(version1);
  const mount = mountPoint("cgroup2", "");
  const path = own.get("");
  if (mount === undefined || path === undefined) {
    return { parent: null, reason: "no cgroup file system is mounted" };
  }
  return verified(unifiedParent(join(mount, path)));
}

function unifiedParent(folder: string): CgroupParent {
  return { version: 2, folders: { memory: folder, pids: folder, cpuacct: folder } };
}

function versionOneParent(own: ReadonlyMap<string, string>): CgroupParent {
  const folders: Partial<Record<Controller, string>> = {};
  for (const controller of ["memory", "pids", "cpuacct"] as const) {
    const mount = mountPoint("cgroup", controller);
    const path = own.get(controller);
    if (mount === undefined || path === undefined) continue;
    const folder = join(mount, path);
    // In a container the path may be the host's; the mount then shows our own cgroup at its top.
    folders[controller] = existsSync(folder) ? folder : mount;
  }
  return { version: 1, folders };
}

/** Makes one, joins and removes it, which is the only proof that it can be done. */
function verified(parent: CgroupParent): CgroupSearch {
  try {
    const probe = JailCgroup.create(parent, `probe-${process.pid}`, PROBE_LIMITS);
    try {
      const [file = "", ...args] = probe.command(["true"]);
      execFileSync(file, args, { stdio: "pipe" });
    } finally {
      probe.remove();
    }
    return { parent };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { parent: null, reason: `no cgroup can be made for a jail: ${reason}` };
  }
}

const PROBE_LIMITS: Pick<Limits, "memoryMb" | "pids"> = { memoryMb: 64, pids: 16 };

/** Removes cgroups that an earlier worker left; those with processes stay. */
export function sweepCgroups(parent: CgroupParent, olderThanMs: number): void {
  for (const folder of new Set(Object.values(parent.folders))) {
    for (const name of readdirSync(folder)) {
      if (!name.startsWith(PREFIX)) continue;
      const path = join(folder, name);
      // Another worker's may be gone since it was listed.
      const found = statSync(path, { throwIfNoEntry: false });
      if (found !== undefined && Date.now() - found.ctimeMs > olderThanMs) tryRemove(path);
    }
  }
}

/** Moves itself into each list before `--` and becomes the command after it. */
const JOIN_SCRIPT =
  'while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done; shift; exec "$@"';

/** The cgroup of one jail. Remove it when the jail's processes are gone. */
export class JailCgroup {
  readonly #parent: CgroupParent;
  readonly #name: string;

  private constructor(parent: CgroupParent, name: string) {
    this.#parent = parent;
    this.#name = name;
  }

  /** @throws if the kernel refuses; nothing is left then. */
  static create(
    parent: CgroupParent,
    id: string,
    limits: Pick<Limits, "memoryMb" | "pids">,
  ): JailCgroup {
    const cgroup = new JailCgroup(parent, `${PREFIX}${id}`);
    try {
      for (const folder of cgroup.#folders()) mkdirSync(folder);
      cgroup.#limit(limits);
      return cgroup;
    } catch (error) {
      cgroup.remove();
      throw error;
    }
  }

  /**
   * The command that runs `command` in it. A process that moves itself by itself, and not its thread
   * group, needs no lock that all moves share, whose first taker waits an RCU grace period, 10 ms.
   * Version 2 knows only the slow way.
   */
  command(command: readonly string[]): readonly string[] {
    const list = this.#parent.version === 1 ? "tasks" : "cgroup.procs";
    const lists = this.#folders().map((folder) => join(folder, list));
    return ["/bin/sh", "-c", JOIN_SCRIPT, "join", ...lists, "--", ...command];
  }

  /** Processes in it now. */
  members(): number[] {
    const text = this.#text("memory", "cgroup.procs") ?? "";
    return text.split("\n").filter(Boolean).map(Number);
  }

  /** The limits as the kernel has them. */
  effectiveLimits(): Partial<Pick<Limits, "memoryMb" | "pids">> {
    const isUnified = this.#parent.version === 2;
    const memory = this.#number("memory", isUnified ? "memory.max" : "memory.limit_in_bytes");
    const pids = this.#number("pids", "pids.max");
    return {
      ...(memory !== undefined && { memoryMb: memory / MB }),
      ...(pids !== undefined && { pids: pids - OWN_PROCESSES }),
    };
  }

  read(): CgroupReading {
    const pidsRefused = this.#counter("pids", "pids.events", "max");
    if (this.#parent.version === 2) {
      const cpuMicros = this.#counter("cpuacct", "cpu.stat", "usage_usec");
      return {
        oomKills: this.#counter("memory", "memory.events", "oom_kill") ?? 0,
        pidsRefused: pidsRefused ?? 0,
        peakBytes: this.#number("memory", "memory.peak"),
        cpuMs: cpuMicros === undefined ? undefined : cpuMicros / 1_000,
      };
    }
    const cpuNanos = this.#number("cpuacct", "cpuacct.usage");
    return {
      oomKills: this.#counter("memory", "memory.oom_control", "oom_kill") ?? 0,
      pidsRefused: pidsRefused ?? 0,
      peakBytes: this.#number("memory", "memory.max_usage_in_bytes"),
      cpuMs: cpuNanos === undefined ? undefined : cpuNanos / 1e6,
    };
  }

  /** As {@link remove}, without holding the event loop for the kernel's locks. */
  async removeSoon(): Promise<boolean> {
    const areGone = await Promise.all(
      this.#folders().map((folder) =>
        rmdir(folder).then(
          () => true,
          () => !existsSync(folder),
        ),
      ),
    );
    return areGone.every(Boolean);
  }

  /** True once every folder is gone; false while a dying process still holds one. */
  remove(): boolean {
    return this.#folders()
      .map((folder) => tryRemove(folder))
      .every(Boolean);
  }

  #folders(): string[] {
    return [...new Set(Object.values(this.#parent.folders))].map((parent) =>
      join(parent, this.#name),
    );
  }

  #limit({ memoryMb, pids }: Pick<Limits, "memoryMb" | "pids">): void {
    const bytes = String(memoryMb * MB);
    if (this.#parent.version === 2) {
      this.#write("memory", "memory.max", bytes);
      this.#writeIfThere("memory", "memory.swap.max", "0");
    } else {
      this.#write("memory", "memory.limit_in_bytes", bytes);
      this.#writeIfThere("memory", "memory.memsw.limit_in_bytes", bytes);
    }
    this.#write("pids", "pids.max", String(pids + OWN_PROCESSES));
  }

  #path(controller: Controller, file: string): string | undefined {
    const parent = this.#parent.folders[controller];
    return parent === undefined ? undefined : join(parent, this.#name, file);
  }

  #write(controller: Controller, file: string, value: string): void {
    const path = this.#path(controller, file);
    if (path === undefined) throw new Error(`there is no ${controller} controller`);
    if (!existsSync(path))
      throw new Error(`the ${controller} controller is not delegated (${file})`);
    writeFileSync(path, value);
  }

  /** For files that only kernels with swap accounting have. */
  #writeIfThere(controller: Controller, file: string, value: string): void {
    const path = this.#path(controller, file);
    if (path !== undefined && existsSync(path)) writeFileSync(path, value);
  }

  #text(controller: Controller, file: string): string | undefined {
    const path = this.#path(controller, file);
    if (path === undefined) return undefined;
    try {
      return readFileSync(path, "utf8");
    } catch {
      return undefined;
    }
  }

  #number(controller: Controller, file: string): number | undefined {
    const value = Number(this.#text(controller, file)?.trim() ?? Number.NaN);
    return Number.isFinite(value) ? value : undefined;
  }

  #counter(controller: Controller, file: string, key: string): number | undefined {
    const line = this.#text(controller, file)
      ?.split("\n")
      .find((text) => text.startsWith(`${key} `));
    return line === undefined ? undefined : Number(line.slice(key.length + 1));
  }
}

function tryRemove(folder: string): boolean {
  try {
    rmdirSync(folder);
  } catch {
    return !existsSync(folder);
  }
  return true;
}

/** Our cgroup per controller; the unified hierarchy has the empty name. */
function ownCgroups(): Map<string, string> {
  const own = new Map<string, string>();
  for (const line of readFileSync("/proc/self/cgroup", "utf8").split("\n")) {
    const [, controllers = "", path] = /^\d+:(?<controllers>[^:]*):(?<path>.*)$/u.exec(line) ?? [];
    if (path === undefined) continue;
    for (const controller of controllers.split(",")) own.set(controller, path);
  }
  return own;
}

function mountPoint(type: string, controller: string): string | undefined {
  for (const line of readFileSync("/proc/self/mounts", "utf8").split("\n")) {
    const [, path, kind, options = ""] = line.split(" ");
    if (kind === type && (controller === "" || options.split(",").includes(controller)))
      return path;
  }
  return undefined;
}
