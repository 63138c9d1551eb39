import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import {
  cgroupPlace,
  dataDirIdentity,
  identify,
  isAlive,
  killExactly,
  type ProcessIdentity,
  processesWithVariable,
  processTree,
} from "../../../src/process/index.ts";
import type { Cage } from "../../../src/protocol/index.ts";
import { type JournalEvent, openJournalReader } from "../../../src/store/index.ts";

const HOST = fileURLToPath(new URL("host.ts", import.meta.url));
const BROOD = fileURLToPath(new URL("brood.ts", import.meta.url));
const MARK = "CJM_BROOD_MARK";

export interface NestOptions {
  /** `cgroup`: a machine that has no PID namespaces; `group`: one that has no control groups either. */
  readonly cage: "auto" | "cgroup" | "group";
  /** Kinds of descendants each worker has. */
  readonly kinds: readonly string[];
  /** Workers that do not end when they are asked to. */
  readonly isStubborn?: boolean;
  /** Hosts and workers of `dist`, which start sooner. @default the sources */
  readonly isBuilt?: boolean;
}

/** A data directory of its own, with hosts of it that can be killed at a chosen moment. */
export class Nest implements AsyncDisposable {
  readonly folder: string;
  readonly mark: string;
  readonly #node: readonly string[];

  private constructor(folder: string, isBuilt: boolean) {
    this.folder = folder;
    this.mark = folder;
    this.#node = isBuilt ? [process.execPath] : [process.execPath, "-C", "@cjm/source"];
  }

  static async create(options: NestOptions): Promise<Nest> {
    const { cage, kinds, isStubborn = false, isBuilt = false } = options;
    // Short: the sockets' paths are below it.
    const nest = new Nest(await mkdtemp("/tmp/cjo-"), isBuilt);
    const manifests = join(nest.folder, "data", "manifests");
    await mkdir(manifests, { recursive: true, mode: 0o700 });
    for (const name of ["run", "tmp", "bin"]) await mkdir(join(nest.folder, name), { mode: 0o700 });
    if (cage === "cgroup") {
      await writeFile(join(nest.folder, "bin", "setpriv"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
    }
    await writeFile(
      join(nest.folder, "cjm.yaml"),
      `data_dir: data\nsubstrate:\n  cage: ${cage === "group" ? "group" : "auto"}\n  terminate_grace_seconds: 0.2\n`,
    );
    const env_vars = {
      [MARK]: nest.mark,
      CJM_BROOD: kinds.join(" "),
      ...(isStubborn && { CJM_BROOD_STUBBORN: manifests }),
    };
    const install = { command: [...nest.#node, BROOD], env_vars };
    const code = {
      name: "brood",
      version: "1",
      sdk: "cjm",
      protocol: 1,
      max_concurrent_requests: 4,
    };
    await writeFile(
      join(manifests, "brood.json"),
      JSON.stringify({ format_version: "2.0", install, code }),
    );
    return nest;
  }

  /** Starts a host; own it with `await using`. */
  start(what: "wait" | "evict" | "stop" = "wait"): NestHost {
    return new NestHost(this, what);
  }

  spawnHost(what: string): ChildProcess {
    const [file = "", ...args] = this.#node;
    return spawn(file, [...args, HOST, this.folder, what], {
      stdio: ["ignore", "pipe", "inherit"],
      env: {
        ...process.env,
        PATH: `${join(this.folder, "bin")}:${process.env["PATH"] ?? ""}`,
        XDG_RUNTIME_DIR: join(this.folder, "run"),
        TMPDIR: join(this.folder, "tmp"),
      },
    });
  }

  /** A process and everyone below it now. */
  treeOf(pid: number): readonly ProcessIdentity[] {
    return processTree(pid).flatMap((member) => identify(member) ?? []);
  }

  /** Resolves when none of these is alive. */
  async ended(members: readonly ProcessIdentity[], limitMs = 10_000): Promise<void> {
    const since = performance.now();
    while (members.some(isAlive)) {
      if (performance.now() - since > limitMs) throw new Error("a worker's descendants live on");
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }

  /** Everyone alive who carries this nest's mark. */
  async marked(): Promise<readonly ProcessIdentity[]> {
    const found = await processesWithVariable(MARK, (value) => value === this.mark);
    return found.filter(isAlive);
  }

  async journal(eventType: string): Promise<readonly JournalEvent[]> {
    const path = join(this.folder, "data", "journal.db");
    await using store = await openJournalReader(path);
    return (await store?.queryJournal({ eventType })) ?? [];
  }

  /** The cage of every worker there has been. */
  async cages(): Promise<readonly Cage[]> {
    const rows = await this.journal("worker_spawned");
    return rows.map(({ payload }) => payload["cage"] as Cage);
  }

  /** What a host left outside its data directory. */
  async leftovers(): Promise<readonly string[]> {
    const lists = await Promise.all(["run", "tmp"].map((name) => readdir(join(this.folder, name))));
    const search = await cgroupPlace();
    const parents = "place" in search ? search.place.parents : [];
    const groups = await Promise.all(parents.map((parent) => readdir(parent)));
    const ours = dataDirIdentity(join(this.folder, "data"));
    return [...lists.flat(), ...groups.flat().filter((name) => name.includes(ours))];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const target of await this.marked()) killExactly(target);
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

type Told = Readonly<Record<string, unknown>>;

export class NestHost implements AsyncDisposable {
  readonly #nest: Nest;
  readonly #child: ChildProcess;
  readonly #told: Told[] = [];
  readonly #exited: Promise<unknown>;
  #wake = Promise.withResolvers<void>();

  constructor(nest: Nest, what: string) {
    this.#nest = nest;
    this.#child = nest.spawnHost(what);
    this.#exited = once(this.#child, "exit");
    if (this.#child.stdout === null) throw new TypeError("A host's stdout is a pipe");
    const lines = createInterface(this.#child.stdout);
    lines.on("line", (line) => {
      this.#told.push(JSON.parse(line) as Told);
      this.#wake.resolve();
    });
    void this.#exited.then(() => {
      this.#told.push({ event: "exited" });
      this.#wake.resolve();
    });
  }

  /** Waits until the host has told this, as often as `times`. @throws if it ends first. */
  async until(event: string, times = 1): Promise<Told> {
    for (;;) {
      const found = this.#told.filter((told) => told["event"] === event);
      const last = found.at(-1);
      if (last !== undefined && found.length >= times) return last;
      if (this.#told.some((told) => told["event"] === "exited")) {
        throw new Error(`The host ended before it was ${event}: ${JSON.stringify(this.#told)}`);
      }
      this.#wake = Promise.withResolvers<void>();
      await this.#wake.promise;
    }
  }

  /** How often it has told this. */
  times(event: string): number {
    return this.#told.filter((told) => told["event"] === event).length;
  }

  /** The host's workers and everyone below them, by descent. */
  family(): readonly ProcessIdentity[] {
    const { pid } = this.#child;
    const pids = pid === undefined ? [] : processTree(pid).filter((member) => member !== pid);
    return pids.flatMap((member) => identify(member) ?? []);
  }

  /** SIGKILL to the host; answers with everyone there was in that moment, itself apart. */
  async kill(): Promise<readonly ProcessIdentity[]> {
    const everyone = [...this.family(), ...(await this.#nest.marked())];
    this.#child.kill("SIGKILL");
    await this.#exited;
    return everyone;
  }

  async exited(): Promise<void> {
    await this.#exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }
}

/** Milliseconds until none of these and none with the nest's mark is alive. */
export async function emptied(
  nest: Nest,
  everyone: readonly ProcessIdentity[],
  limitMs = 10_000,
): Promise<number> {
  const since = performance.now();
  while (everyone.some(isAlive) || (await nest.marked()).length > 0) {
    if (performance.now() - since > limitMs) {
      const left = [...everyone.filter(isAlive), ...(await nest.marked())];
      throw new Error(`still alive after ${limitMs} ms: ${JSON.stringify(left)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return performance.now() - since;
}
