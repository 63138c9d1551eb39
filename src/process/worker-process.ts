import { Duplex, type Readable } from "node:stream";
import { constants } from "node:os";
import { execa } from "execa";
import { CjmError } from "../errors/index.ts";
import { type Cage, PROTOCOL_VERSION, type ReadyFrame } from "../protocol/index.ts";
import { randomHex } from "../util/ids.ts";
import { type LineBlock, outputTexts } from "../util/lines.ts";
import { within } from "../util/wait.ts";
import { cagedCommand } from "./cage.ts";
import { cgroupPlace, WorkerCgroup } from "./cgroup.ts";
import { type ActiveFrame, ControlStream } from "./control-stream.ts";
import { awaitHealth } from "./foreign-worker.ts";
import { OutputPump, type OutputStream } from "./output-pump.ts";
import { identify, killExactly, type ProcessIdentity, processTree } from "./process-table.ts";
import { endSessionProcesses, SESSION_VARIABLE } from "./session.ts";

const LAST_WORDS_BYTES = 64 * 1024;

/** Descriptor of the control stream in the worker; the first one after stdin, stdout and stderr. */
export const CONTROL_FD = 3;

export interface WorkerSpec {
  readonly capability: string;
  readonly sessionId: string;
  readonly command: readonly string[];
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly cage: Cage;
  readonly startTimeoutMs: number;
  /** Where a worker that knows no control stream will answer; it is asked for its health there. */
  readonly foreignAddress?: string;
}

/** Where a worker's frames and output go; every method returns at once and never throws. */
export interface WorkerSink {
  frame(frame: ActiveFrame): void;
  /** Log frames, not parsed. */
  logs(lines: LineBlock): void;
  output(stream: OutputStream, lines: LineBlock): void;
  note(message: string): void;
}

/** How a worker ended. */
export interface WorkerExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The code of its `bye`, if it ended by itself and said so. */
  readonly bye: number | null;
  readonly isEndedByHost: boolean;
  /** How many of its processes the kernel killed for memory; counted in a `cgroup` cage only. */
  readonly oomKills: number;
}

interface Child {
  readonly pid: number;
  readonly stdout: Readable;
  readonly stderr: Readable;
  readonly control: Duplex;
  readonly cgroup: WorkerCgroup | undefined;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

/**
 * A running worker that has completed its handshake.
 *
 * Own it with `await using`: leaving the scope, on success or on error, ends its whole tree.
 */
export class WorkerProcess implements AsyncDisposable {
  readonly pid: number;
  readonly ready: ReadyFrame;
  readonly token: string;
  readonly cage: Cage;
  readonly sessionId: string;
  /** Settles when the process has exited and its pipes are read. Never rejects. */
  readonly exited: Promise<WorkerExit>;
  readonly #running: RunningWorker;

  private constructor(running: RunningWorker, ready: ReadyFrame) {
    this.#running = running;
    this.pid = running.child.pid;
    this.ready = ready;
    this.token = running.token;
    this.cage = running.spec.cage;
    this.sessionId = running.spec.sessionId;
    this.exited = running.exited;
  }

  /**
   * Spawns a worker and waits for its `ready` frame. In every failure no process is left behind.
   *
   * @throws {CjmError} `WORKER_START_TIMEOUT` without a handshake in `spec.startTimeoutMs`;
   *   `WORKER_EXITED` if the process ends first; `WORKER_HANDSHAKE` for another protocol version;
   *   `CAPABILITY_NOT_INSTALLED` if the command does not exist.
   * @throws `signal.reason` if the caller aborts.
   */
  static async start(
    spec: WorkerSpec,
    sink: WorkerSink,
    signal?: AbortSignal,
  ): Promise<WorkerProcess> {
    signal?.throwIfAborted();
    const running = new RunningWorker(spec, await spawn(spec), sink);
    try {
      const ready = await running.handshake(signal);
      return new WorkerProcess(running, ready);
    } catch (error) {
      await running.kill();
      throw error;
    }
  }

  get isRunning(): boolean {
    return this.#running.exit === undefined;
  }

  /** SIGTERM to the group, SIGKILL to the whole tree after `graceMs`. Resolves when all is gone. */
  async terminate(graceMs: number): Promise<WorkerExit> {
    return await this.#running.terminate(graceMs);
  }

  /** SIGKILL to the whole tree, now. */
  async kill(): Promise<WorkerExit> {
    return await this.#running.kill();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}

class RunningWorker {
  readonly spec: WorkerSpec;
  readonly child: Child;
  readonly token = randomHex(32);
  readonly exited: Promise<WorkerExit>;
  exit: WorkerExit | undefined;
  readonly #firstReady = Promise.withResolvers<ReadyFrame>();
  /** What was last written to stderr, as long as it may have to tell why there is no worker. */
  #lastWords = Buffer.alloc(0);
  #isReady = false;
  #bye: number | null = null;
  #isEndedByHost = false;

  constructor(spec: WorkerSpec, child: Child, sink: WorkerSink) {
    this.spec = spec;
    this.child = child;
    const control = new ControlStream(child.control, this.token, {
      frame: (frame) => {
        if (frame.type === "bye") this.#bye = frame.code;
        if (frame.type === "ready") this.#firstReady.resolve(frame);
        else sink.frame(frame);
      },
      logs: (lines) => {
        sink.logs(lines);
      },
      note: (message) => {
        sink.note(message);
      },
      ended: () => undefined,
    });
    const pumps = [
      new OutputPump(child.stdout, (lines) => {
        sink.output("stdout", lines);
      }),
      new OutputPump(child.stderr, (lines) => {
        this.#keepTail(lines);
        sink.output("stderr", lines);
      }),
    ];
    this.exited = child.exited.then(async ({ code, signal }) => {
      // Before the pipes are read to their end: whoever is left may hold them. Where the host itself
      // is out of descriptors, they are found at the next host's start.
      await this.#emptyCage().catch(() => undefined);
      await Promise.all([...pumps, control].map((stream) => stream.drain()));
      control.close();
      const oomKills = child.cgroup?.oomKills() ?? 0;
      const ending = { bye: this.#bye, isEndedByHost: this.#isEndedByHost, oomKills };
      this.exit = Object.assign(ending, asSignal(code, signal));
      return this.exit;
    });
  }

  async handshake(signal: AbortSignal | undefined): Promise<ReadyFrame> {
    const timeout = AbortSignal.timeout(this.spec.startTimeoutMs);
    const stop = signal === undefined ? timeout : AbortSignal.any([signal, timeout]);
    const stopped = Promise.withResolvers<never>();
    const onStop = (): void => {
      stopped.reject(timeout.aborted ? startTimeout(this.spec) : signal?.reason);
    };
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) onStop();
    const over = new AbortController();
    try {
      const ready = await Promise.race([
        this.#greeting(over.signal),
        this.exited.then((exit) => {
          throw this.#exitedEarly(exit);
        }),
        stopped.promise,
      ]);
      if (ready.protocol !== PROTOCOL_VERSION) throw this.#wrongProtocol(ready.protocol);
      if (!isWhereTold(ready.address, this.spec)) throw this.#wrongAddress(ready.address);
      this.#isReady = true;
      this.#lastWords = Buffer.alloc(0);
      return ready;
    } finally {
      over.abort();
      stop.removeEventListener("abort", onStop);
    }
  }

  async #greeting(over: AbortSignal): Promise<ReadyFrame> {
    const { foreignAddress } = this.spec;
    if (foreignAddress === undefined) return await this.#firstReady.promise;
    return await awaitHealth(foreignAddress, over);
  }

  async terminate(graceMs: number): Promise<WorkerExit> {
    if (this.exit !== undefined) return this.exit;
    this.#isEndedByHost = true;
    const tree = this.#tree();
    signalGroup(this.child.pid, "SIGTERM");
    const exit = await within(this.child.exited, graceMs);
    if (exit === undefined) signalGroup(this.child.pid, "SIGKILL");
    return await this.#swept(tree);
  }

  async kill(): Promise<WorkerExit> {
    this.#isEndedByHost ||= this.exit === undefined;
    const tree = this.#tree();
    signalGroup(this.child.pid, "SIGKILL");
    return await this.#swept(tree);
  }

  /** Who descends from the worker now, for a cage that does not know. */
  #tree(): readonly ProcessIdentity[] {
    if (this.spec.cage !== "group" || this.exit !== undefined) return [];
    return processTree(this.child.pid).flatMap((pid) => identify(pid) ?? []);
  }

  /** Ends who is known by descent, which a cleared environment does not hide, and waits for the rest. */
  async #swept(tree: readonly ProcessIdentity[]): Promise<WorkerExit> {
    for (const member of tree) killExactly(member);
    const exit = await this.exited;
    await this.child.cgroup?.remove();
    return exit;
  }

  /**
   * Ends what the worker's first process left. A PID namespace is emptied by the kernel; elsewhere
   * whoever got away is looked for by the session's mark, which the end of a parent does not hide.
   */
  async #emptyCage(): Promise<void> {
    if (this.spec.cage === "pidns") return;
    await this.child.cgroup?.kill();
    await endSessionProcesses((sessionId) => sessionId === this.spec.sessionId);
  }

  #keepTail({ bytes }: LineBlock): void {
    if (this.#isReady) return;
    this.#lastWords = Buffer.concat([this.#lastWords, bytes]).subarray(-LAST_WORDS_BYTES);
  }

  #exitedEarly(exit: WorkerExit): CjmError {
    const { capability, sessionId } = this.spec;
    const lines = outputTexts(this.#lastWords).slice(-5);
    const tail = lines.length === 0 ? "" : `: ${lines.join(" | ")}`;
    return new CjmError(
      "WORKER_EXITED",
      `Worker of "${capability}" ended ${describeExit(exit)} before it was ready${tail}`,
      // A worker that cannot start will not start the next time either.
      { category: "fatal", details: { capability, sessionId, ...exit } },
    );
  }

  #wrongAddress(address: string): CjmError {
    return new CjmError(
      "WORKER_HANDSHAKE",
      `Worker of "${this.spec.capability}" reports an address it was not told to listen on: ${address}`,
    );
  }

  #wrongProtocol(protocol: number): CjmError {
    return new CjmError(
      "WORKER_HANDSHAKE",
      `Worker of "${this.spec.capability}" speaks protocol ${protocol}; this host speaks ${PROTOCOL_VERSION}`,
    );
  }
}

/** The error of a worker that did not come up in its time. */
export function startTimeout({
  capability,
  startTimeoutMs,
}: Pick<WorkerSpec, "capability" | "startTimeoutMs">): CjmError {
  return new CjmError(
    "WORKER_START_TIMEOUT",
    `Worker of "${capability}" was not ready after ${startTimeoutMs} ms`,
    { details: { capability, startTimeoutMs } },
  );
}

/** `on SIGKILL`, or `with code 1`. */
export function describeExit(exit: Pick<WorkerExit, "code" | "signal">): string {
  return exit.signal === null ? `with code ${exit.code ?? "unknown"}` : `on ${exit.signal}`;
}

async function spawn(spec: WorkerSpec): Promise<Child> {
  const cgroup = spec.cage === "cgroup" ? await makeCgroup(spec) : undefined;
  const command = cgroup?.command(spec.command) ?? cagedCommand(spec.cage, spec.command);
  const [file = "", ...args] = command;
  const subprocess = execa(file, args, {
    cwd: spec.cwd,
    env: { ...spec.env, [SESSION_VARIABLE]: spec.sessionId, CJM_CONTROL_FD: String(CONTROL_FD) },
    extendEnv: false,
    buffer: false,
    detached: true,
    reject: false,
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  const node = subprocess.nodeChildProcess;
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    node.once("exit", (code, signal) => {
      resolve({ code, signal });
    });
  });
  const control = node.stdio[CONTROL_FD];
  if (subprocess.pid === undefined || !(control instanceof Duplex)) {
    const { shortMessage } = await subprocess;
    await cgroup?.remove();
    throw new CjmError(
      "CAPABILITY_NOT_INSTALLED",
      `Worker of "${spec.capability}" cannot be started: ${shortMessage ?? file}`,
    );
  }
  const { pid, stdout, stderr } = subprocess;
  return { pid, stdout, stderr, control, cgroup, exited };
}

async function makeCgroup({ capability, sessionId }: WorkerSpec): Promise<WorkerCgroup> {
  const search = await cgroupPlace();
  if ("place" in search) return await WorkerCgroup.create(search.place, sessionId);
  throw new CjmError(
    "CAPABILITY_NOT_INSTALLED",
    `Worker of "${capability}" cannot get a control group: ${search.reason}`,
  );
}

/** A worker must not send its host, and the token, to a socket of somebody else. */
function isWhereTold(address: string, { env, foreignAddress }: WorkerSpec): boolean {
  const told = foreignAddress ?? env["CJM_LISTEN"] ?? "";
  return address === told || (told.startsWith("tcp:") && address.startsWith("tcp:127.0.0.1:"));
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // The group is already empty.
  }
}

/** The cage's first process reports a death by signal as exit code 128 + number. */
function asSignal(
  code: number | null,
  signal: NodeJS.Signals | null,
): { code: number | null; signal: NodeJS.Signals | null } {
  if (code === null || code <= 128) return { code, signal };
  const number = code - 128;
  const name = SIGNALS.find((signal) => constants.signals[signal] === number);
  return name === undefined ? { code, signal } : { code: null, signal: name };
}

const SIGNALS: readonly NodeJS.Signals[] = [
  ...(["SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS"] as const),
  ...(["SIGFPE", "SIGKILL", "SIGUSR1", "SIGSEGV", "SIGUSR2", "SIGPIPE", "SIGALRM"] as const),
  ...(["SIGTERM", "SIGXCPU", "SIGXFSZ", "SIGSYS"] as const),
];
