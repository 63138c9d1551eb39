import { join } from "node:path";
import { CjmError } from "cjm-substrate/worker";
import { findCgroupParent, sweepCgroups, type CgroupSearch } from "./cgroup.ts";
import type { Backend } from "./backend.ts";
import { JailReserve, type RunEngine } from "./jail-reserve.ts";
import {
  findInterpreter,
  type Interpreter,
  type InterpreterPaths,
  type Language,
} from "./languages.ts";
import type { Limits, Mount } from "./policy.ts";
import { noIsolation } from "./none.ts";
import { identityHere, probeBubblewrap, probeNsjail, type ProbeResult } from "./probe.ts";
import { inputMount, systemMounts, writeEtc } from "./sandbox-root.ts";
import type { IsolationChoice, LimitsInput } from "./schemas.ts";
import { Scratch } from "./scratch.ts";
import { assembleFilter, isArchitecture } from "./seccomp.ts";
import { SYSCALL_RULES } from "./syscall-policy.ts";
import { Workspaces } from "./work-folders.ts";

export interface WorkbenchOptions {
  readonly interpreters: InterpreterPaths;
  readonly defaultLimits: LimitsInput;
  /** Folders with packages for guests, shown read-only at their own paths. */
  readonly packages?: Readonly<Record<"python" | "node", readonly string[]>>;
  /** Where named workspaces are kept; without it they last as long as the workbench. */
  readonly workspaceFolder?: string;
  /** A cgroup v2 folder that was delegated to us. */
  readonly cgroupParent?: string | undefined;
  /** False samples the tree even where a cgroup could be made. */
  readonly useCgroups?: boolean;
  /** How long a jail waits for the next run of its kind; 0 sets up none beforehand. */
  readonly keepReadyMs?: number;
}

export const KEEP_READY_MS = 2_000;

/** Cgroups of a worker that was killed are removed when they are this old and empty. */
const STALE_CGROUP_MS = 60_000;

/** Everything a worker prepares once: private folder, filter, cgroups, probed backends, interpreters. */
export class Workbench implements AsyncDisposable {
  readonly options: WorkbenchOptions;
  readonly cgroups: CgroupSearch;
  readonly probes: readonly ProbeResult[];
  readonly scratch: Scratch;
  readonly workspaces: Workspaces;
  readonly reserve: JailReserve;
  readonly #filterPath: string | undefined;
  readonly #mounts: readonly Mount[];
  #none: Promise<Backend> | undefined;
  readonly #interpreters = new Map<string, Promise<Interpreter>>();

  private constructor(
    options: WorkbenchOptions,
    prepared: Prepared & { probes: readonly ProbeResult[] },
  ) {
    this.options = options;
    this.cgroups = prepared.cgroups;
    this.probes = prepared.probes;
    this.scratch = prepared.scratch;
    this.workspaces = new Workspaces(
      options.workspaceFolder ?? join(prepared.scratch.folder, "workspaces"),
      identityHere(),
    );
    this.reserve = new JailReserve(options.keepReadyMs ?? KEEP_READY_MS);
    this.#filterPath = prepared.filterPath;
    this.#mounts = prepared.mounts;
  }

  /** Tries every backend; that none works is not an error here but at the first run. */
  static async open(options: WorkbenchOptions): Promise<Workbench> {
    const prepared = prepare(options);
    const engine = {
      cgroups: prepared.cgroups.parent,
      scratch: prepared.scratch,
      filterPath: prepared.filterPath,
    };
    const probes = await Promise.all([
      probeNsjail(engine, prepared.mounts),
      probeBubblewrap(engine, prepared.mounts),
    ]);
    return new Workbench(options, { ...prepared, probes });
  }

  /**
   * The engine for a choice of isolation.
   *
   * @throws {CjmError} `ISOLATION_UNAVAILABLE` with the reason of every backend that was tried.
   */
  async engine(choice: IsolationChoice): Promise<RunEngine> {
    if (choice === "none") return this.#engineOf(await this.#noIsolation());
    const found = this.probes.find(
      ({ name, usable }) => usable && (choice === "auto" || choice === name),
    );
    if (found?.backend !== undefined) return this.#engineOf(found.backend);
    const reasons = this.probes
      .filter(({ name }) => choice === "auto" || choice === name)
      .map(({ name, reason }) => `${name}: ${reason}`);
    throw new CjmError(
      "ISOLATION_UNAVAILABLE",
      `No isolation for untrusted code. ${reasons.join("; ")}`,
    );
  }

  #engineOf(backend: Backend): RunEngine {
    return {
      backend,
      cgroups: this.cgroups.parent,
      scratch: this.scratch,
      filterPath: this.#filterPath,
      reserve: this.reserve,
    };
  }

  #noIsolation(): Promise<Backend> {
    this.#none ??= noIsolation();
    return this.#none;
  }

  /** The interpreter of a language, looked for once. */
  interpreter(language: Exclude<Language, "command">): Promise<Interpreter> {
    const known = this.#interpreters.get(language);
    if (known !== undefined) return known;
    const found = findInterpreter(language, this.options.interpreters[language]);
    this.#interpreters.set(language, found);
    // A failure is asked again: the interpreter may have been installed meanwhile.
    found.catch(() => this.#interpreters.delete(language));
    return found;
  }

  limits(asked: LimitsInput): Limits {
    const all = { ...this.options.defaultLimits, ...asked };
    const wallMs = all.wall_ms ?? 10_000;
    return {
      wallMs,
      cpuMs: all.cpu_ms ?? wallMs,
      memoryMb: all.memory_mb ?? 512,
      pids: all.pids ?? 64,
      outputBytes: all.output_bytes ?? 262_144,
      diskMb: all.disk_mb ?? 64,
    };
  }

  mounts(inputDirs: Readonly<Record<string, string>>): Mount[] {
    const inputs = Object.entries(inputDirs).map(([name, path]) => inputMount(name, path));
    return [...this.#mounts, ...inputs];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.reserve[Symbol.asyncDispose]();
    this.scratch[Symbol.dispose]();
  }
}

interface Prepared {
  readonly scratch: Scratch;
  readonly filterPath: string | undefined;
  readonly mounts: readonly Mount[];
  readonly cgroups: CgroupSearch;
}

function prepare(options: WorkbenchOptions): Prepared {
  const scratch = Scratch.create();
  const filterPath = isArchitecture(process.arch)
    ? scratch.keepFile("filter.bpf", assembleFilter(SYSCALL_RULES, process.arch))
    : undefined;
  const cgroups: CgroupSearch =
    options.useCgroups === false
      ? { parent: null, reason: "switched off" }
      : findCgroupParent(options.cgroupParent);
  if (cgroups.parent !== null) sweepCgroups(cgroups.parent, STALE_CGROUP_MS);
  return {
    scratch,
    filterPath,
    cgroups,
    mounts: systemMounts(writeEtc(join(scratch.folder, "etc"))),
  };
}
