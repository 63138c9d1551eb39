import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request, type IncomingMessage, type RequestOptions } from "node:http";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { workerFrameSchema, type WorkerFrame } from "../../../src/protocol/index.ts";

export const TOKEN = "t".repeat(64);
const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

export interface Answer {
  readonly status: number;
  readonly text: string;
  readonly body: unknown;
}

/** A fixture worker as its own process, and this test as its host. */
export class TestHost implements AsyncDisposable {
  readonly child: ChildProcess;
  readonly control: Socket;
  readonly frames: WorkerFrame[] = [];
  readonly stderr: string[] = [];
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  readonly #folder = mkdtempSync(join(tmpdir(), "cjm-w-"));
  readonly #waiting = new Set<() => void>();

  constructor(fixture: string, { env = {}, hello = true }: StartOptions = {}) {
    this.child = spawn(process.execPath, ["-C", "@cjm/source", fixturePath(fixture)], {
      cwd: ROOT,
      stdio: ["ignore", "pipe", "pipe", "pipe"],
      env: {
        PATH: process.env["PATH"],
        CJM_LISTEN: `unix:${join(this.#folder, "w.sock")}`,
        CJM_CONTROL_FD: "3",
        CJM_PROTOCOL: "1",
        CAPABILITY_DATA_DIR: this.#folder,
        ...env,
      },
    });
    this.control = this.child.stdio[3] as Socket;
    this.control.on("error", () => undefined);
    this.child.stderr?.on("data", (text: Buffer) => this.stderr.push(String(text)));
    this.exited = new Promise((resolve) => {
      this.child.once("exit", (code, signal) => {
        resolve({ code, signal });
      });
    });
    createInterface({ input: this.control }).on("line", (line) => {
      this.frames.push(workerFrameSchema.parse(JSON.parse(line)));
      for (const check of this.#waiting) check();
    });
    if (hello) this.say({ type: "hello", protocol: 1, token: TOKEN });
  }

  say(line: unknown): void {
    this.control.write(`${JSON.stringify(line)}\n`);
  }

  /** The first frame of a type that fits, sent already or later. */
  frame<Type extends WorkerFrame["type"]>(
    type: Type,
    fits: (frame: Extract<WorkerFrame, { type: Type }>) => boolean = () => true,
  ): Promise<Extract<WorkerFrame, { type: Type }>> {
    type Wanted = Extract<WorkerFrame, { type: Type }>;
    const { promise, resolve } = Promise.withResolvers<Wanted>();
    const check = (): void => {
      const found = this.frames.find(
        (frame): frame is Wanted => frame.type === type && fits(frame as Wanted),
      );
      if (found !== undefined) resolve(found);
    };
    this.#waiting.add(check);
    check();
    return promise.finally(() => this.#waiting.delete(check));
  }

  /** Sends a request; `leave` closes the connection before the answer. */
  async open(path: string, options: CallOptions = {}): Promise<IncomingMessage> {
    const { address } = await this.frame("ready");
    const outgoing = request({
      path,
      method: options.method ?? "POST",
      headers: { authorization: `Bearer ${TOKEN}`, ...options.headers },
      ...endpoint(address),
      ...(options.leave !== undefined && { signal: options.leave }),
    });
    // A worker that has refused a body need not read its rest: what fails after the answer is no news.
    outgoing.on("error", () => undefined);
    outgoing.end(
      options.method === "GET" ? "" : (options.raw ?? JSON.stringify(options.body ?? {})),
    );
    const [response] = (await once(outgoing, "response")) as [IncomingMessage];
    return response;
  }

  async call(path: string, options: CallOptions = {}): Promise<Answer> {
    const response = await this.open(path, options);
    const text = (await response.setEncoding("utf8").toArray()).join("");
    return { status: response.statusCode ?? 0, text, body: parsed(text) };
  }

  /** Ready and initialized. */
  async start(): Promise<this> {
    await this.call("/initialize");
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.control.destroy();
    this.child.kill("SIGKILL");
    await this.exited;
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

interface StartOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly hello?: boolean;
}

interface CallOptions {
  readonly method?: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
  readonly raw?: string | Buffer;
  readonly leave?: AbortSignal;
}

export function fixturePath(name: string): string {
  return join(ROOT, "test/fixtures/workers", `${name}.ts`);
}

function endpoint(address: string): RequestOptions {
  if (address.startsWith("unix:")) return { socketPath: address.slice("unix:".length) };
  const [host, port] = address.slice("tcp:".length).split(":");
  return { host, port };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Resolves when a process runs no more; the kernel tells nobody but its parent. */
export async function gone(pid: number): Promise<void> {
  while (isRunning(pid)) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** A zombie is over: whoever adopted it has not asked for its end yet. */
function isRunning(pid: number): boolean {
  try {
    return !/^\d+ \(.*\) Z/su.test(readFileSync(`/proc/${pid}/stat`, "utf8"));
  } catch {
    return false;
  }
}
