import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { Agent, request as httpRequest, type IncomingMessage } from "node:http";
import { Duplex } from "node:stream";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { workerFrameSchema, type WorkerFrame } from "../../src/protocol/index.ts";

/** What the suite runs against: a command that starts a worker, and what it needs to start. */
export interface Target {
  readonly name: string;
  readonly command: readonly [string, ...string[]];
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Specs of the two fixture adapters, where the target is the fixture capability. */
  readonly adapters?: { readonly fits: string; readonly lacks: string; readonly missing: string };
}

export interface StartOptions {
  readonly listen?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** The first line on the control stream; `null` sends none. */
  readonly hello?: string | null;
  /** Waits for `ready` and sends `/initialize`. @default true */
  readonly ready?: boolean;
  readonly initialize?: boolean;
}

export interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly text: string;
  /** The parsed body; undefined when it is not JSON. */
  readonly json: unknown;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: string | null;
}

interface SendOptions {
  readonly token?: string | null;
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as it is, instead of JSON. */
  readonly raw?: string | Buffer;
  readonly chunked?: boolean;
}

/** Ends a wait that would never end; no case depends on how long anything takes. */
const PATIENCE_MS = 20_000;

function impatient<T>(promise: Promise<T>, what: () => string): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<T>();
  const timer = setTimeout(() => {
    reject(new Error(`waited too long for ${what()}`));
  }, PATIENCE_MS);
  return Promise.race([promise, late]).finally(() => {
    clearTimeout(timer);
  });
}

/** One worker process, spoken to as a host does and known only from outside. */
export class WorkerUnderTest implements AsyncDisposable {
  readonly token = "conformance-token-".padEnd(48, "0123456789");
  readonly folder = mkdtempSync(join(tmpdir(), "cjm-c-"));
  readonly dataFolder = join(this.folder, "data");
  readonly outputFolder = join(this.folder, "out");
  readonly listenAddress: string;
  readonly frames: WorkerFrame[] = [];
  /** Lines of the control stream that are no frames; empty for a conforming worker. */
  readonly malformed: string[] = [];
  longestLine = 0;
  output = "";
  readonly exited: Promise<Exit>;
  readonly #child: ChildProcess;
  readonly #control: Duplex;
  readonly #agent = new Agent({ keepAlive: true });
  readonly #arrivals = new Set<() => void>();
  #hasEnded = false;

  private constructor(target: Target, options: StartOptions) {
    this.listenAddress = options.listen ?? `unix:${join(this.folder, "w.sock")}`;
    mkdirSync(this.dataFolder);
    mkdirSync(this.outputFolder);
    const [program, ...args] = target.command;
    this.#child = spawn(program, args, {
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      detached: true,
      cwd: target.cwd,
      env: { ...this.#environment(), ...target.env, ...options.env },
    });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (this.output += text));
    }
    const control = this.#child.stdio[3];
    if (!(control instanceof Duplex)) throw new Error("the control stream is not a socket");
    this.#control = control;
    control.on("error", () => undefined);
    this.#readFrames(control);
    this.exited = this.#watchEnd(control);
  }

  /** The end of the process, and of what it still had to say. */
  async #watchEnd(control: Duplex): Promise<Exit> {
    const { promise: closed, resolve } = Promise.withResolvers<void>();
    control.once("close", () => {
      resolve();
    });
    await once(this.#child, "exit");
    await closed;
    this.#hasEnded = true;
    this.#announce();
    return { code: this.#child.exitCode, signal: this.#child.signalCode };
  }

  static async start(target: Target, options: StartOptions = {}): Promise<WorkerUnderTest> {
    const worker = new WorkerUnderTest(target, options);
    const hello = { type: "hello", protocol: 1, token: worker.token };
    const line = options.hello === undefined ? JSON.stringify(hello) : options.hello;
    if (line !== null) worker.#control.write(`${line}\n`);
    if (options.ready === false) return worker;
    try {
      await worker.frame((frame) => frame.type === "ready");
      if (options.initialize !== false) await worker.post("/initialize", {});
    } catch (error) {
      await worker[Symbol.asyncDispose]();
      throw new Error(`the worker did not start:\n${worker.output}`, { cause: error });
    }
    return worker;
  }

  get pid(): number {
    return this.#child.pid ?? 0;
  }

  #environment(): Record<string, string> {
    const { PATH = "", HOME = "", LANG = "C.UTF-8" } = process.env;
    return {
      PATH,
      HOME,
      LANG,
      TMPDIR: this.folder,
      CJM_PROTOCOL: "1",
      CJM_LISTEN: this.listenAddress,
      CJM_CONTROL_FD: "3",
      CJM_WORKER_SESSION_ID: `conformance-${process.pid}`,
      CJM_CAPABILITY_DATA_DIR: this.folder,
      CAPABILITY_DATA_DIR: this.dataFolder,
      CJM_MODELS_DIR: join(this.folder, "models"),
      CJM_LOG_LEVEL: "info",
    };
  }

  #readFrames(control: Duplex): void {
    let rest = Buffer.alloc(0);
    control.on("data", (chunk: Buffer) => {
      rest = Buffer.concat([rest, chunk]);
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        this.longestLine = Math.max(this.longestLine, end + 1);
        this.#take(rest.subarray(0, end).toString("utf8"));
        rest = rest.subarray(end + 1);
      }
      this.#announce();
    });
  }

  #take(line: string): void {
    const parsed = workerFrameSchema.safeParse(parseOrUndefined(line));
    if (parsed.success) this.frames.push(parsed.data);
    else this.malformed.push(line);
  }

  #announce(): void {
    for (const arrived of this.#arrivals) arrived();
  }

  /** The first frame that fits, waiting for it where needed. */
  frame<Kind extends WorkerFrame>(fits: (frame: WorkerFrame) => frame is Kind): Promise<Kind>;
  frame(fits: (frame: WorkerFrame) => boolean): Promise<WorkerFrame>;
  frame(fits: (frame: WorkerFrame) => boolean): Promise<WorkerFrame> {
    const { promise, resolve, reject } = Promise.withResolvers<WorkerFrame>();
    const look = (): void => {
      const found = this.frames.find(fits);
      if (found !== undefined) resolve(found);
      else if (this.#hasEnded) reject(new Error(`the worker ended:\n${this.output}`));
    };
    this.#arrivals.add(look);
    look();
    return impatient(
      promise,
      () => `a frame; came: ${JSON.stringify(this.frames.slice(-5))}`,
    ).finally(() => this.#arrivals.delete(look));
  }

  get(path: string, options?: SendOptions): Promise<Reply> {
    return this.#send("GET", path, undefined, options);
  }

  post(path: string, body?: unknown, options?: SendOptions): Promise<Reply> {
    return this.#send("POST", path, body, options);
  }

  /** Calls an action; `envelope.output_folder` is there unless the envelope says otherwise. */
  execute(
    action: string | undefined,
    kwargs: Readonly<Record<string, unknown>> = {},
    envelope: Readonly<Record<string, unknown>> = {},
  ): Promise<Reply> {
    return this.post("/execute", this.callBody(action, kwargs, envelope));
  }

  callBody(
    action: string | undefined,
    kwargs: Readonly<Record<string, unknown>> = {},
    envelope: Readonly<Record<string, unknown>> = {},
  ): unknown {
    const named = action === undefined ? kwargs : { ...kwargs, action };
    return { args: [], kwargs: named, envelope: { output_folder: this.outputFolder, ...envelope } };
  }

  async #send(
    method: string,
    path: string,
    body: unknown,
    options: SendOptions = {},
  ): Promise<Reply> {
    const response = await this.open(method, path, body, options);
    response.message.setEncoding("utf8");
    let text = "";
    for await (const part of response.message) text += String(part);
    const contentType = response.message.headers["content-type"] ?? "";
    return {
      status: response.message.statusCode ?? 0,
      contentType,
      text,
      json: parseOrUndefined(text),
    };
  }

  /** A request whose answer is read by the case; `leave` closes the connection. */
  async open(
    method: string,
    path: string,
    body: unknown,
    options: SendOptions = {},
  ): Promise<{ message: IncomingMessage; leave: () => void }> {
    const { request, response } = this.begin(method, path, body, options);
    const message = await impatient(response, () => `${method} ${path}\n${this.output}`);
    return { message, leave: () => request.destroy() };
  }

  /** A request as {@link WorkerUnderTest.open}, without waiting for its answer. */
  begin(
    method: string,
    path: string,
    body: unknown,
    { token = this.token, headers = {}, raw, chunked = false }: SendOptions = {},
  ): { request: ReturnType<typeof httpRequest>; response: Promise<IncomingMessage> } {
    const content = raw ?? (body === undefined ? "" : JSON.stringify(body));
    const request = httpRequest({
      ...this.#where(),
      agent: this.#agent,
      method,
      path,
      headers: {
        ...(token !== null && { authorization: `Bearer ${token}` }),
        ...(method === "POST" && { "content-type": "application/json" }),
        ...(method === "POST" && !chunked && { "content-length": Buffer.byteLength(content) }),
        ...headers,
      },
    });
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    promise.catch(() => undefined);
    request.on("error", reject).on("response", resolve);
    request.end(content);
    return { request, response: promise };
  }

  #where(): { socketPath: string } | { host: string; port: number } {
    const ready = this.frames.find((frame) => frame.type === "ready");
    const address = ready?.address ?? this.listenAddress;
    if (address.startsWith("unix:")) return { socketPath: address.slice("unix:".length) };
    return { host: "127.0.0.1", port: Number(address.split(":").at(-1)) };
  }

  /** Ends the control stream, as the death of the host does. */
  closeControl(): void {
    this.#control.destroy();
  }

  writeControl(text: string): void {
    this.#control.write(text);
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** How the process ended; waits for it. */
  end(): Promise<Exit> {
    return impatient(this.exited, () => `the end of the process\n${this.output}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#agent.destroy();
    this.#control.destroy();
    if (!this.#hasEnded) {
      try {
        process.kill(-this.pid, "SIGKILL");
      } catch {
        // It ended by itself meanwhile.
      }
      await this.exited;
    }
    rmSync(this.folder, { recursive: true, force: true });
  }
}

function parseOrUndefined(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** True while a process exists. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
