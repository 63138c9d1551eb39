import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { openSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { CjmError } from "cjm-substrate/worker";
import type { Backend } from "./backend.ts";
import { JailCgroup, warmMoveLock, type CgroupParent } from "./cgroup.ts";
import { guestCommand } from "./jail-init.ts";
import { OutputCapture, type CapturedOutput } from "./output-capture.ts";
import { FD, WORK_FOLDER, type JailPolicy } from "./policy.ts";
import { childrenOf, isRunning, treeOf } from "./process-tree.ts";
import { closeAll, type PipeSlot, type Scratch } from "./scratch.ts";
import { parseGuestEnd, type GuestEnd } from "./status.ts";

/** What every jail of a worker shares. */
export interface JailEngine {
  readonly backend: Backend;
  /** Null: the supervisor samples the tree instead. */
  readonly cgroups: CgroupParent | null;
  readonly scratch: Scratch;
  /** The assembled system call filter; undefined where the backend makes its own. */
  readonly filterPath: string | undefined;
}

export interface JailOptions {
  readonly stdin?: string | Uint8Array | undefined;
  readonly signal: AbortSignal;
  onOutput?(stream: "stdout" | "stderr", bytes: Buffer): void;
  onOverflow?(): void;
}

const READY_TIMEOUT_MS = 10_000;
/** How long the jail's own sweep may take before the whole jail is killed. */
const SWEEP_GRACE_MS = 200;
/** How long a pipe may stay open after every process of the jail is gone. */
const DRAIN_GRACE_MS = 250;

/** About two seconds; what is left then, the next worker's sweep removes. */
const MAX_REMOVE_TRIES = 1_000;

let jailCount = 0;

/**
 * One jail, from its first process to its last.
 *
 * `start` returns it set up and waiting at the gate, so that limits and input files are in place
 * before the guest's first instruction. Own it with `await using`: leaving the scope ends every
 * process of it and removes its cgroup.
 */
export class Jail implements AsyncDisposable {
  /** The jail's first process, as this process sees it. */
  initPid = 0;
  cgroup: JailCgroup | undefined;
  readonly policy: JailPolicy;
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  readonly #reports: ReportReader;
  readonly #slot: PipeSlot;
  readonly #engine: JailEngine;
  readonly #stdout: OutputCapture;
  readonly #stderr: OutputCapture;
  #log = "";

  private constructor(engine: JailEngine, policy: JailPolicy, options: JailOptions) {
    this.policy = policy;
    this.#engine = engine;
    this.#slot = engine.scratch.takeSlot();
    const out = this.#slot.open("out");
    const err = this.#slot.open("err");
    const capture = (stream: "stdout" | "stderr", fd: number): OutputCapture =>
      new OutputCapture(fd, {
        limitBytes: policy.limits.outputBytes,
        onData: (bytes) => options.onOutput?.(stream, bytes),
        onOverflow: () => options.onOverflow?.(),
      });
    this.#stdout = capture("stdout", out.readFd);
    this.#stderr = capture("stderr", err.readFd);
    this.#child = spawnJail(engine, policy, { options, out: out.writeFd, err: err.writeFd });
    this.#closed = once(this.#child, "exit").catch(() => undefined);
    this.#reports = new ReportReader(this.#child);
    this.#child.stderr?.on("data", (chunk: Buffer) => {
      if (this.#log.length < 65_536) this.#log += chunk.toString("utf8");
    });
  }

  /**
   * @throws {CjmError} `ISOLATION_UNAVAILABLE` with the backend's own words if it cannot be set up;
   * `signal.reason` if the caller aborts. No process is left in either case.
   */
  static async start(engine: JailEngine, policy: JailPolicy, options: JailOptions): Promise<Jail> {
    options.signal.throwIfAborted();
    const jail = new Jail(engine, policy, options);
    try {
      await jail.#becomeReady(policy, options.signal);
      return jail;
    } catch (error) {
      await jail[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** The jail's file system as this process can reach it. */
  get root(): string {
    return `/proc/${this.initPid}/root`;
  }

  /** The guest's working folder as this process can reach it. */
  get workFolder(): string {
    return this.policy.workSource ?? join(this.root, WORK_FOLDER);
  }

  /** Leads to the guest's descriptor for the supervisor, where the policy has one. */
  get channel(): Socket | undefined {
    const streams: readonly unknown[] = this.#child.stdio;
    const stream = streams[FD.channel];
    return stream instanceof Socket ? stream : undefined;
  }

  /** Lets the guest run. */
  openGate(): void {
    this.#child.stdin?.write(`${guestCommand(this.policy)}\n`);
  }

  /** Resolves when no process of the guest is left; undefined if the jail died as a whole. */
  async guestEnd(): Promise<GuestEnd | undefined> {
    const status = await this.#reports.line("status ");
    await this.#reports.line("swept");
    return status === undefined ? undefined : parseGuestEnd(Number(status));
  }

  /** Ends the guest and keeps the jail's file systems, or ends all if that does not work at once. */
  async endGuest(): Promise<void> {
    for (const pid of childrenOf(this.initPid)) killQuietly(pid);
    const isSwept = this.#reports.line("swept").then(() => true);
    if (await Promise.race([isSwept, delay(SWEEP_GRACE_MS, false, { ref: false })])) return;
    this.kill();
  }

  /** Ends the guest unless it ends by itself in that time. */
  async endGuestAfter(graceMs: number): Promise<void> {
    const isSwept = this.#reports.line("swept").then(() => true);
    if (await Promise.race([isSwept, delay(graceMs, false, { ref: false })])) return;
    await this.endGuest();
  }

  /** Ends every process of the jail at once. */
  kill(): void {
    if (this.#engine.backend.hasPidNamespace) {
      if (this.initPid !== 0) killQuietly(this.initPid);
    } else {
      for (const pid of treeOf(this.#child.pid ?? 0)) killQuietly(pid);
      for (const pid of this.cgroup?.members() ?? []) killQuietly(pid);
    }
    this.#child.kill("SIGKILL");
  }

  /** What the backend said about itself. */
  get log(): string {
    return this.#log.trim();
  }

  /** Ends what is left and returns what was printed. */
  async finish(): Promise<{ stdout: CapturedOutput; stderr: CapturedOutput }> {
    this.kill();
    await this.#closed;
    const [stdout, stderr] = await Promise.all([
      this.#stdout.finish(DRAIN_GRACE_MS),
      this.#stderr.finish(DRAIN_GRACE_MS),
    ]);
    return { stdout, stderr };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.finish();
    // A pipe that somebody still holds is not given to another jail.
    if (this.#stdout.isDrained && this.#stderr.isDrained) {
      this.#engine.scratch.returnSlot(this.#slot);
    }
    await this.#removeCgroup();
  }

  async #becomeReady(policy: JailPolicy, signal: AbortSignal): Promise<void> {
    const abort = AbortSignal.any([signal, AbortSignal.timeout(READY_TIMEOUT_MS)]);
    const onAbort = (): void => this.kill();
    abort.addEventListener("abort", onAbort);
    const { cgroups } = this.#engine;
    const warming = cgroups === null ? undefined : warmMoveLock(cgroups);
    const ready = await this.#reports.line("ready");
    abort.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    if (ready === undefined) throw await this.#setupError(abort.aborted);
    this.initPid = findInit(this.#child.pid ?? 0);
    if (cgroups === null) return;
    await warming;
    jailCount += 1;
    const id = `${process.pid}-${Date.now().toString(36)}-${jailCount}`;
    this.cgroup = JailCgroup.create(cgroups, id, policy.limits);
    this.cgroup.add(this.initPid);
  }

  /** The kernel lets go of a cgroup only after the last process in it has been reaped. */
  async #removeCgroup(): Promise<void> {
    for (let tries = 0; tries < MAX_REMOVE_TRIES; tries += 1) {
      if (this.cgroup?.remove() !== false) break;
      await delay(2);
    }
    this.cgroup = undefined;
  }

  async #setupError(isTimeout: boolean): Promise<CjmError> {
    await this.#closed;
    const { name, version } = this.#engine.backend;
    const why = isTimeout
      ? `no jail after ${READY_TIMEOUT_MS} ms`
      : this.log || "it ended silently";
    return new CjmError("ISOLATION_UNAVAILABLE", `${name} ${version} made no jail: ${why}`);
  }
}

/** Lines that the jail's first process prints, by their first word. */
class ReportReader {
  readonly #seen = new Map<string, string>();
  readonly #waiting = new Set<() => void>();
  #isClosed = false;

  constructor(child: ChildProcess) {
    if (child.stdout === null) throw new TypeError("A jail needs its report stream");
    const lines = createInterface({ input: child.stdout });
    lines.on("line", (line) => {
      const space = line.indexOf(" ");
      const word = space === -1 ? line : line.slice(0, space + 1);
      if (this.#seen.size < 8) this.#seen.set(word, line.slice(word.length));
      this.#wake();
    });
    lines.on("close", () => {
      this.#isClosed = true;
      this.#wake();
    });
    child.on("error", () => lines.close());
  }

  /** The rest of the line that begins with `word`, once it is there; undefined if it never comes. */
  async line(word: string): Promise<string | undefined> {
    while (!this.#seen.has(word) && !this.#isClosed && !this.#isPast(word)) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.add(resolve);
      await promise;
    }
    return this.#seen.get(word);
  }

  /** The status is never printed after the sweep. */
  #isPast(word: string): boolean {
    return word === "status " && this.#seen.has("swept");
  }

  #wake(): void {
    for (const resolve of this.#waiting) resolve();
    this.#waiting.clear();
  }
}

/** The process whose children are the guest's: the lowest one of the backend's chain. */
function findInit(childPid: number): number {
  const [below] = childrenOf(childPid);
  return below ?? childPid;
}

function spawnJail(
  { backend, scratch, filterPath }: JailEngine,
  policy: JailPolicy,
  { options, out, err }: { options: JailOptions; out: number; err: number },
): ChildProcess {
  const launch = backend.launch(policy);
  const opened = [out, err];
  const keep = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  try {
    const stdin = keep(
      options.stdin === undefined
        ? openSync("/dev/null", "r")
        : scratch.anonymousFile(options.stdin),
    );
    const args = keep(scratch.anonymousFile(launch.optionFile ?? ""));
    const stdio: ("pipe" | "ignore" | number)[] = ["pipe", "pipe", "pipe", stdin, out, err, args];
    // Descriptors this process was started with would reach the guest; they are put out of reach.
    const nothing = keep(openSync("/dev/null", "r"));
    for (const fd of scratch.inheritedFds) stdio[fd] ??= nothing;
    if (backend.wantsFilter && filterPath !== undefined) {
      stdio[FD.seccomp] = keep(openSync(filterPath, "r"));
    }
    if (policy.hasChannel === true) stdio[FD.channel] = "pipe";
    return spawn(launch.file, launch.args, {
      // Node leaves holes out and would move the rest down.
      stdio: Array.from(stdio, (entry) => entry ?? "ignore"),
      cwd: launch.cwd ?? "/",
      detached: true,
      // What a backend inherits, its guest could read from /proc.
      env: launch.env ?? { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
    });
  } finally {
    closeAll(opened);
  }
}

function killQuietly(pid: number): void {
  try {
    if (pid > 1 && isRunning(pid)) process.kill(pid, "SIGKILL");
  } catch {
    // Gone in between.
  }
}
