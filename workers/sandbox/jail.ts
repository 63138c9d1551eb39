import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, writeFileSync } from "node:fs";
import { Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { CjmError } from "cjm-substrate/worker";
import type { Backend } from "./backend.ts";
import { JailCgroup, type CgroupParent } from "./cgroup.ts";
import { guestCommand } from "./jail-init.ts";
import { OutputCapture, type CapturedOutput } from "./output-capture.ts";
import { FD, WORK_FOLDER, type JailPolicy } from "./policy.ts";
import { childrenOf, isRunning, treeOf } from "./process-tree.ts";
import { ReportReader } from "./report-reader.ts";
import { closeAll, type PipeSlot, type Scratch } from "./scratch.ts";
import { spawnJail } from "./spawn-jail.ts";
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

/** What a run brings to a jail that waits for it. */
export interface JailUse {
  readonly policy: JailPolicy;
  /** Without it, the guest reads an end at once. */
  readonly stdin?: string | Uint8Array | undefined;
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
  readonly cgroup: JailCgroup | undefined;
  readonly #engine: JailEngine;
  readonly #slot: PipeSlot;
  readonly #stdinFd: number;
  readonly #stdout: OutputCapture;
  readonly #stderr: OutputCapture;
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  readonly #reports: ReportReader;
  #policy: JailPolicy;
  #hasStdin = false;
  #log = "";

  private constructor(engine: JailEngine, policy: JailPolicy, cgroup: JailCgroup | undefined) {
    this.#engine = engine;
    this.cgroup = cgroup;
    this.#policy = policy;
    this.#slot = engine.scratch.takeSlot();
    const stdin = engine.scratch.anonymousFile();
    const out = this.#slot.open("out");
    const err = this.#slot.open("err");
    this.#stdinFd = stdin.writeFd;
    this.#stdout = new OutputCapture(out.readFd);
    this.#stderr = new OutputCapture(err.readFd);
    const streams = { stdin: stdin.readFd, stdout: out.writeFd, stderr: err.writeFd };
    try {
      this.#child = spawnJail(engine, policy, { streams, cgroup });
    } catch (error) {
      closeSync(stdin.writeFd);
      throw error;
    } finally {
      closeAll(Object.values(streams));
    }
    this.#closed = once(this.#child, "exit").catch(() => undefined);
    this.#reports = new ReportReader(this.#child);
    // A jail that is gone takes no command; that is seen by what it does not report.
    this.#child.stdin?.on("error", () => undefined);
    this.#child.stderr?.on("data", (chunk: Buffer) => {
      if (this.#log.length < 65_536) this.#log += chunk.toString("utf8");
    });
  }

  /**
   * @throws {CjmError} `ISOLATION_UNAVAILABLE` with the backend's own words if it cannot be set up;
   * `signal.reason` if the caller aborts. No process is left in either case.
   */
  static async start(engine: JailEngine, policy: JailPolicy, signal: AbortSignal): Promise<Jail> {
    signal.throwIfAborted();
    const { cgroups } = engine;
    const cgroup = cgroups === null ? undefined : makeCgroup(cgroups, policy);
    let jail: Jail | undefined;
    try {
      jail = new Jail(engine, policy, cgroup);
      await jail.#becomeReady(signal);
      return jail;
    } catch (error) {
      if (jail === undefined) cgroup?.remove();
      else await jail[Symbol.asyncDispose]();
      throw error;
    }
  }

  get policy(): JailPolicy {
    return this.#policy;
  }

  /** False once the jail is gone, for whatever reason. */
  get isAlive(): boolean {
    return !this.#reports.isClosed && isRunning(this.initPid);
  }

  /**
   * Hands the jail to a run. The run's policy must agree with the one the jail was started with in
   * all but argv, env, clocks and bytes of output, which take effect at the gate.
   */
  assign(use: JailUse): void {
    this.#policy = use.policy;
    const { outputBytes: limitBytes } = use.policy.limits;
    const onOverflow = (): void => use.onOverflow?.();
    this.#stdout.deliverTo({
      limitBytes,
      onData: (bytes) => use.onOutput?.("stdout", bytes),
      onOverflow,
    });
    this.#stderr.deliverTo({
      limitBytes,
      onData: (bytes) => use.onOutput?.("stderr", bytes),
      onOverflow,
    });
    this.#hasStdin = use.stdin !== undefined;
    if (use.stdin !== undefined) writeFileSync(this.#stdinFd, use.stdin);
  }

  /** The jail's file system as this process can reach it. */
  get root(): string {
    return `/proc/${this.initPid}/root`;
  }

  /** The guest's working folder as this process can reach it. */
  get workFolder(): string {
    return this.#policy.workSource ?? join(this.root, WORK_FOLDER);
  }

  /** Leads to the guest's descriptor for the supervisor, where the policy has one. */
  get channel(): Socket | undefined {
    const streams: readonly unknown[] = this.#child.stdio;
    const stream = streams[FD.channel];
    return stream instanceof Socket ? stream : undefined;
  }

  /** Lets the guest run. */
  openGate(): void {
    this.#child.stdin?.write(`${guestCommand(this.#policy, this.#hasStdin)}\n`);
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
    closeSync(this.#stdinFd);
    // A pipe that somebody still holds is not given to another jail.
    if (this.#stdout.isDrained && this.#stderr.isDrained) {
      this.#engine.scratch.returnSlot(this.#slot);
    }
    await this.#removeCgroup();
  }

  async #becomeReady(signal: AbortSignal): Promise<void> {
    const abort = AbortSignal.any([signal, AbortSignal.timeout(READY_TIMEOUT_MS)]);
    const onAbort = (): void => this.kill();
    abort.addEventListener("abort", onAbort);
    const ready = await this.#reports.line("ready");
    abort.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    if (ready === undefined) throw await this.#setupError(abort.aborted);
    this.initPid = this.#findInit();
  }

  /** The process that ends what the guest leaves: the lowest one of the backend's own. */
  #findInit(): number {
    const started = this.#child.pid ?? 0;
    const [below] = this.#engine.backend.hasPidNamespace ? childrenOf(started) : [];
    return below ?? started;
  }

  /** The kernel lets go of a cgroup only after the last process in it has been reaped. */
  async #removeCgroup(): Promise<void> {
    for (let tries = 0; tries < MAX_REMOVE_TRIES; tries += 1) {
      if ((await this.cgroup?.removeSoon()) !== false) break;
      await delay(2);
    }
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

function makeCgroup(cgroups: CgroupParent, { limits }: JailPolicy): JailCgroup {
  jailCount += 1;
  return JailCgroup.create(
    cgroups,
    `${process.pid}-${Date.now().toString(36)}-${jailCount}`,
    limits,
  );
}

function killQuietly(pid: number): void {
  try {
    if (pid > 1 && isRunning(pid)) process.kill(pid, "SIGKILL");
  } catch {
    // Gone in between.
  }
}
