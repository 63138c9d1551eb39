import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import { mkdir, readdir, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { toError } from "../errors/index.ts";
import { randomHex } from "../util/ids.ts";
import { identify, isAlive } from "./process-table.ts";

/** Where control groups of workers can be made: below the host's own, one folder a hierarchy. */
export interface CgroupPlace {
  /** Parents; the first one's members are those that are ended. */
  readonly parents: readonly string[];
  /** The parent whose kernel counts processes that were killed for memory. */
  readonly memory?: string | undefined;
}

/** A place, or why there is none. */
export type CgroupSearch = { readonly place: CgroupPlace } | { readonly reason: string };

const PREFIX = "cjm-worker-";
const PROCS = "cgroup.procs";
/** Hierarchies of version 1 that can hold a worker; every one can, and these are usual. */
const VERSION_1 = ["memory", "pids", "freezer", "devices"] as const;

/** Enters every control group named before `--`, then becomes the command behind it. */
const JOIN_SCRIPT =
  'while [ "$1" != -- ]; do echo $$ > "$1" || exit 125; shift; done; shift; exec "$@"';

const ROUNDS = 500;
const REMOVE_ROUNDS = 50;
const ROUND_MS = 5;

let found: Promise<CgroupSearch> | undefined;

/** The best place of this process, looked for once. */
export async function cgroupPlace(): Promise<CgroupSearch> {
  found ??= findPlace();
  return await found;
}

async function findPlace(): Promise<CgroupSearch> {
  const reasons: string[] = [];
  const places = candidatePlaces();
  for (const parent of new Set(places.flatMap(({ parents }) => parents))) await sweepProbes(parent);
  for (const place of places) {
    try {
      const probe = await WorkerCgroup.create(place, `${ownProbe()}-${randomHex(4)}`);
      await probe.remove();
      return { place };
    } catch (error) {
      reasons.push(toError(error).message);
    }
  }
  return { reason: reasons[0] ?? "no control group file system is mounted" };
}

const PROBE = /^cjm-worker-probe-(?<space>\d+)-(?<pid>\d+)-(?<ticks>\d+)-/u;
/** No probe takes so long. */
const PROBE_MS = 10 * 60_000;

/** `probe-<PID namespace>-<pid>-<start time>`: who probes, beyond a pid that may be given to another. */
function ownProbe(): string {
  const startTicks = identify(process.pid)?.startTicks ?? 0;
  return `probe-${pidSpace()}-${process.pid}-${startTicks}`;
}

/** The number of this process's PID namespace; pids of another one say nothing here. */
function pidSpace(): string {
  try {
    return /\d+/u.exec(readlinkSync("/proc/self/ns/pid"))?.[0] ?? "0";
  } catch {
    return "0";
  }
}

/** Removes the probes of processes that ended in between. The kernel keeps a group that is in use. */
export async function sweepProbes(parent: string): Promise<void> {
  for (const name of await readdir(parent).catch(() => [])) {
    const { space, pid, ticks } = PROBE.exec(name)?.groups ?? {};
    if (space === undefined) continue;
    const folder = join(parent, name);
    const owner = { pid: Number(pid), startTicks: Number(ticks) };
    const isOver = space === pidSpace() ? !isAlive(owner) : ageMs(folder) > PROBE_MS;
    if (isOver) await rmdir(folder).catch(() => undefined);
  }
}

function ageMs(path: string): number {
  return Date.now() - (statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? Date.now());
}

/**
 * Every place that might do, best first: a kernel that ends a whole group at once (version 2, also
 * beside version 1), then version 1.
 */
export function candidatePlaces(): readonly CgroupPlace[] {
  const own = ownFolders();
  const memory = own.get("memory");
  const unified = own.get("");
  const first = VERSION_1.flatMap((name) => own.get(name) ?? [])[0];
  return [
    ...(unified === undefined
      ? []
      : memory === undefined
        ? [{ parents: [unified], memory: unified }]
        : [
            { parents: [unified, memory], memory },
            { parents: [unified], memory: unified },
          ]),
    ...(first === undefined ? [] : [{ parents: [first], memory }]),
  ];
}

/** The folder of this process in each hierarchy; version 2 has the name "". */
function ownFolders(): ReadonlyMap<string, string> {
  const mounts = cgroupMounts();
  const folders = new Map<string, string>();
  for (const line of textOf("/proc/self/cgroup").split("\n")) {
    const [, names, path] = /^\d+:(?<names>[^:]*):(?<path>.*)$/u.exec(line) ?? [];
    if (names === undefined || path === undefined) continue;
    for (const name of names.split(",")) {
      const mount = mounts.get(name);
      if (mount === undefined) continue;
      const folder = join(
        mount.point,
        path.startsWith(mount.root) ? path.slice(mount.root.length) : "",
      );
      // In a container the path may be the host's; the mount then shows our own group at its top.
      folders.set(name, existsSync(join(folder, PROCS)) ? folder : mount.point);
    }
  }
  return folders;
}

interface Mount {
  readonly point: string;
  /** The part of the hierarchy that the mount shows, without a slash at its end. */
  readonly root: string;
}

function cgroupMounts(): ReadonlyMap<string, Mount> {
  const mounts = new Map<string, Mount>();
  for (const line of textOf("/proc/self/mountinfo").split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , root = "", point = ""] = left.split(" ");
    const [type, , options = ""] = right.split(" ");
    const mount = { point: unescaped(point), root: unescaped(root).replace(/\/$/u, "") };
    if (type === "cgroup2") mounts.set("", mount);
    if (type === "cgroup") for (const name of options.split(",")) mounts.set(name, mount);
  }
  return mounts;
}

/** The kernel writes blanks in paths as octal numbers. */
function unescaped(path: string): string {
  return path.replaceAll(/\\(?<code>[0-7]{3})/gu, (_, code: string) =>
    String.fromCharCode(Number.parseInt(code, 8)),
  );
}

/** The control group of one worker session: nothing it starts can leave it without the right to. */
export class WorkerCgroup {
  readonly #folders: readonly string[];
  readonly #memory: string | undefined;

  private constructor({ parents, memory }: CgroupPlace, name: string) {
    this.#folders = parents.map((parent) => join(parent, name));
    this.#memory = memory === undefined ? undefined : join(memory, name);
  }

  /** The group of a session that may or may not be there. */
  static of(place: CgroupPlace, sessionId: string): WorkerCgroup {
    return new WorkerCgroup(place, PREFIX + sessionId);
  }

  /** @throws what the kernel says if it refuses; nothing is left then. */
  static async create(place: CgroupPlace, sessionId: string): Promise<WorkerCgroup> {
    const cgroup = WorkerCgroup.of(place, sessionId);
    try {
      for (const folder of cgroup.#folders) await mkdir(folder);
      return cgroup;
    } catch (error) {
      await cgroup.remove();
      throw error;
    }
  }

  /** The command that runs `command` in this group. */
  command(command: readonly string[]): readonly string[] {
    const files = this.#folders.map((folder) => join(folder, PROCS));
    return ["sh", "-c", JOIN_SCRIPT, "join", ...files, "--", ...command];
  }

  /** Ends everything in the group; resolves when nothing is left. */
  async kill(): Promise<void> {
    const [folder = ""] = this.#folders;
    for (let round = 0; round < ROUNDS; round += 1) {
      const members = membersOf(folder);
      if (members.length === 0) return;
      await endMembers(folder, members);
      await sleep(ROUND_MS);
    }
  }

  /** How many of its processes the kernel has killed for memory; 0 where it does not count. */
  oomKills(): number {
    const memory = this.#memory;
    if (memory === undefined) return 0;
    const files = ["memory.events", "memory.oom_control"];
    const text = files.map((file) => textOf(join(memory, file))).join("\n");
    return Number(/^oom_kill (?<count>\d+)$/mu.exec(text)?.groups?.["count"] ?? 0);
  }

  /** Removes the group and what a worker made below it. Does nothing to one that is not empty. */
  async remove(): Promise<void> {
    for (const folder of this.#folders) await removeTree(folder);
  }
}

/**
 * Ends and removes the groups of the sessions `accepts` says yes to.
 *
 * @returns the sessions they belonged to.
 */
export async function endCgroups(
  accepts: (sessionId: string) => boolean,
): Promise<readonly string[]> {
  const search = await cgroupPlace();
  if (!("place" in search)) return [];
  const [parent = ""] = search.place.parents;
  const names = await readdir(parent).catch(() => []);
  const sessions = names
    .filter((name) => name.startsWith(PREFIX))
    .map((name) => name.slice(PREFIX.length))
    .filter(accepts);
  for (const session of sessions) {
    const cgroup = WorkerCgroup.of(search.place, session);
    await cgroup.kill();
    await cgroup.remove();
  }
  return sessions;
}

async function endMembers(folder: string, members: readonly number[]): Promise<void> {
  try {
    await writeFile(join(folder, "cgroup.kill"), "1", { flag: "r+" });
    return;
  } catch {
    // Version 1, or a kernel before 5.14: one by one, until no new one is found.
  }
  for (const pid of members) {
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It ended in between.
    }
  }
}

/** Its processes and those of the groups below it. */
function membersOf(folder: string): number[] {
  const own = textOf(join(folder, PROCS)).split("\n").filter(Boolean).map(Number);
  return [...own, ...subfolders(folder).flatMap(membersOf)];
}

/** What has just ended counts as a member until its parent has seen it. */
async function removeTree(folder: string): Promise<void> {
  for (const below of subfolders(folder)) await removeTree(below);
  for (let round = 0; round < REMOVE_ROUNDS && existsSync(folder); round += 1) {
    if (round > 0) await sleep(ROUND_MS);
    await rmdir(folder).catch(() => undefined);
    if (membersOf(folder).length > 0) return;
  }
}

function subfolders(folder: string): string[] {
  try {
    const entries = readdirSync(folder, { withFileTypes: true });
    return entries.filter((one) => one.isDirectory()).map(({ name }) => join(folder, name));
  } catch {
    return [];
  }
}

/** Empty where it cannot be read. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "latin1");
  } catch {
    return "";
  }
}
