import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { stripTypeScriptTypes } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Pool } from "undici";
import { z } from "zod";
import {
  buildWorkerEnvironment,
  probeCage,
  processTree,
  SessionNames,
  WorkerConnection,
  type WorkerSpec,
} from "../src/process/index.ts";
import { type Cage, statusReplySchema } from "../src/protocol/index.ts";

const at = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const ROOT = at("..");

/** Something that echoes a JSON value over a Unix socket. */
export interface Subject {
  readonly name: string;
  /** The process that answers. */
  pid(): number;
  call(value: string): Promise<unknown>;
}

interface Opened extends AsyncDisposable {
  readonly subjects: readonly Subject[];
}

/** What is measured side by side: bare echoes, and workers of both SDKs in their cage. */
export async function openSubjects(python: string): Promise<Opened> {
  await using stack = new AsyncDisposableStack();
  stack.use(await compilePrograms());
  const folder = await mkdtemp(join(tmpdir(), "cjm-bench-"));
  stack.defer(() => rm(folder, { recursive: true, force: true }));
  const { cage } = await probeCage();
  const bench = new WorkerBench(folder, cage);
  const subjects = [
    stack.use(await bareSubject("bare node:http", nodeCommand("bare"), join(folder, "n.sock"))),
    stack.use(await bench.subject("TypeScript worker", nodeCommand("echo"))),
    stack.use(await bench.subject("Python worker", pythonCommand(python, "echo.py"))),
    stack.use(
      await bareSubject(
        "bare Python socket",
        pythonCommand(python, "bare.py"),
        join(folder, "s.sock"),
        ["socket"],
      ),
    ),
    stack.use(
      await bareSubject(
        "Python http.server",
        pythonCommand(python, "bare.py"),
        join(folder, "h.sock"),
      ),
    ),
  ];
  const owned = stack.move();
  return { subjects, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

/** Where the compiled programs lie while a benchmark runs: inside the package, which they import. */
const BUILT = at("../dist/bench");

const PROGRAMS = ["bare", "echo", "files", "chatter"] as const;

/** Compiles the Node programs; disposing it removes them. */
export async function compilePrograms(): Promise<AsyncDisposable> {
  await mkdir(BUILT, { recursive: true });
  for (const name of PROGRAMS) {
    const source = await readFile(at(`workers/${name}.ts`), "utf8");
    await writeFile(join(BUILT, `${name}.js`), stripTypeScriptTypes(source));
  }
  return { [Symbol.asyncDispose]: () => rm(BUILT, { recursive: true, force: true }) };
}

export function nodeCommand(name: (typeof PROGRAMS)[number]): readonly string[] {
  return [process.execPath, join(BUILT, `${name}.js`)];
}

export function pythonCommand(python: string, script: string): readonly string[] {
  return [python, at(`workers/${script}`)];
}

/** Starts a program that prints a line when it listens. */
export async function startBare(command: readonly string[]): Promise<ChildProcess> {
  const [program = "", ...args] = command;
  // A session of its own, as a worker has: the kernel shares out time by sessions.
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  await once(child.stdout ?? child, "data");
  return child;
}

async function bareSubject(
  name: string,
  command: readonly string[],
  socketPath: string,
  args: readonly string[] = [],
): Promise<Subject & AsyncDisposable> {
  const child = await startBare([...command, socketPath, ...args]);
  const pool = new Pool("http://localhost", { socketPath, headersTimeout: 0, bodyTimeout: 0 });
  return {
    name,
    pid: () => child.pid ?? 0,
    async call(value) {
      const { body } = await pool.request({
        method: "POST",
        path: "/",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ value }),
      });
      return await body.json();
    },
    async [Symbol.asyncDispose]() {
      await pool.destroy();
      child.kill("SIGKILL");
    },
  };
}

const SILENT = {
  frame: () => undefined,
  logs: () => undefined,
  output: () => undefined,
  note: () => undefined,
};

/** Starts workers as the host does: built environment, cage, compile cache. */
export class WorkerBench {
  readonly #folder: string;
  readonly #cage: Cage;
  readonly #sessions: SessionNames;
  #count = 0;

  constructor(folder: string, cage: Cage) {
    this.#folder = folder;
    this.#cage = cage;
    this.#sessions = new SessionNames(folder);
  }

  #spec(command: readonly string[]): WorkerSpec {
    this.#count += 1;
    const protocol = {
      CJM_PROTOCOL: "1",
      CJM_LISTEN: `unix:${join(this.#folder, `w${this.#count}.sock`)}`,
      CAPABILITY_DATA_DIR: this.#folder,
      CJM_CAPABILITY_DATA_DIR: this.#folder,
      NODE_COMPILE_CACHE: join(this.#folder, "compile-cache"),
    };
    return {
      capability: "echo",
      sessionId: this.#sessions.next(),
      command,
      cwd: ROOT,
      env: buildWorkerEnvironment({
        host: process.env,
        pass: [],
        install: { PYTHONPATH: at("../python/src") },
        declared: {},
        protocol,
      }),
      cage: this.#cage,
      startTimeoutMs: 60_000,
    };
  }

  async start(command: readonly string[]): Promise<WorkerConnection> {
    return await WorkerConnection.start(this.#spec(command), SILENT);
  }

  async subject(name: string, command: readonly string[]): Promise<Subject & AsyncDisposable> {
    const connection = await this.start(command);
    await connection.post("/initialize", {}, statusReplySchema);
    const pid = workerPid(connection);
    let count = 0;
    return {
      name,
      pid: () => pid,
      async call(value) {
        count += 1;
        const envelope = { job_id: `job-${count}`, run_id: "bench", actor: "bench" };
        const body = { args: [], kwargs: { action: "echo", value }, envelope };
        return (await connection.post("/execute", body, z.unknown())).value;
      },
      [Symbol.asyncDispose]: () => connection[Symbol.asyncDispose](),
    };
  }
}

/** The process of the worker itself, the last that its cage made. */
export function workerPid({ worker }: WorkerConnection): number {
  return Math.max(...processTree(worker.pid));
}
