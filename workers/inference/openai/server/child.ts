import { spawn, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import type { Readable } from "node:stream";
import type { ManagedServerConfig, ServerKind } from "../config.ts";
import { failure, quote } from "../failure.ts";
import { LastLines } from "./last-lines.ts";
import { VramMeter } from "./vram.ts";

type Child = ChildProcessByStdio<null, Readable, Readable>;

/** A server program that runs: its port, and a promise of its end. */
export interface RunningServer {
  readonly port: number;
  readonly pid: number;
  /** Aborts with `engine_crashed` at the moment the program ends, whoever ended it. */
  readonly gone: AbortSignal;
}

/**
 * The server program of an instance, as a child of the worker in a process group of its own.
 *
 * It ends with the worker: by `stop`, by the worker's exit, or with the worker's cage.
 */
export class ServerChild {
  readonly #key: string | undefined;
  readonly #config: ManagedServerConfig;
  readonly #kind: ServerKind;
  readonly #log: (message: string) => void;
  #child: Child | undefined;
  #vram = new VramMeter();
  #running: RunningServer | undefined;

  constructor(
    config: ManagedServerConfig,
    kind: ServerKind,
    options: { readonly log: (message: string) => void; readonly key: string | undefined },
  ) {
    this.#config = config;
    this.#kind = kind;
    this.#log = options.log;
    this.#key = options.key;
  }

  get running(): RunningServer | undefined {
    return this.#running?.gone.aborted === false ? this.#running : undefined;
  }

  /** MiB that the program and its children hold of the GPUs; undefined where nothing tells. */
  async vramMb(): Promise<number | undefined> {
    return await this.#vram.measure(this.running?.pid);
  }

  /** Starts the program; its readiness is the caller's to ask. @throws `engine_missing` */
  async start(): Promise<RunningServer> {
    await this.stop();
    const port = await freePort();
    const [file = "", ...args] = this.#config.command.map((part) =>
      part.replaceAll("{port}", String(port)),
    );
    const child = spawn(file, args, {
      cwd: this.#config.cwd ?? undefined,
      env: this.#environment(),
      stdio: ["ignore", "pipe", "pipe"],
      // A group of its own, so that the program's own children can be ended with it.
      detached: true,
    });
    this.#child = child;
    this.#vram = new VramMeter();
    const running = this.#watch(child, port);
    try {
      // Rejects at the event `error`, which is all that comes where there is no such program.
      await once(child, "spawn");
    } catch (error) {
      throw failure("engine_missing", `cannot start the server program ${file}`, { cause: error });
    }
    return running;
  }

  /** SIGTERM to the program and its children, after the grace period SIGKILL. */
  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child?.pid === undefined) return;
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, "exit");
      killGroup(child.pid, "SIGTERM");
      const timer = setTimeout(() => {
        killGroup(child.pid, "SIGKILL");
      }, this.#config.grace_seconds * 1000);
      await ended;
      clearTimeout(timer);
    }
    // What the program left behind in its group.
    killGroup(child.pid, "SIGKILL");
  }

  #environment(): NodeJS.ProcessEnv {
    const environment: NodeJS.ProcessEnv = { ...process.env, ...this.#config.env };
    for (const name of KEYS_OF_THE_WORKER) delete environment[name];
    const variable = keyVariable(this.#kind);
    if (variable !== undefined) environment[variable] = this.#key;
    return this.#kind === "vllm" ? forVllm(environment, this.#log) : environment;
  }

  #watch(child: Child, port: number): RunningServer {
    const gone = new AbortController();
    const tail = new LastLines(20);
    for (const stream of [child.stdout, child.stderr]) {
      void tail.read(stream, (line) => {
        this.#log(line);
      });
    }
    const killWithWorker = (): void => {
      killGroup(child.pid, "SIGKILL");
    };
    process.once("exit", killWithWorker);
    child.once("error", () => undefined);
    child.once("exit", (code, signal) => {
      process.removeListener("exit", killWithWorker);
      const how = signal === null ? `with code ${String(code)}` : `on ${signal}`;
      const words = quote(tail.text, 1000);
      const message = `the ${this.#kind} server ended ${how}; its last words: ${words || "none"}`;
      gone.abort(failure("engine_crashed", message, { details: { code, signal } }));
    });
    this.#running = { port, pid: child.pid ?? 0, gone: gone.signal };
    return this.#running;
  }
}

function killGroup(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch {
    // Nobody is left in it.
  }
}

/** A port that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  server.close();
  await once(server, "close");
  if (address === null || typeof address === "string") throw new TypeError("no port");
  return address.port;
}

/** Secrets of the worker that are no business of the server's program. */
const KEYS_OF_THE_WORKER = ["INFERENCE_API_KEY", "INFERENCE_SERVER_API_KEY"] as const;

/** The variable from which a server reads the key that it asks for; undefined where it has none. */
export function keyVariable(kind: ServerKind): string | undefined {
  if (kind === "vllm") return "VLLM_API_KEY";
  return kind === "llama-server" ? "LLAMA_API_KEY" : undefined;
}

const ALLOCATOR = ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"] as const;

/** vLLM's sleep frees nothing of what PyTorch allocates in expandable segments. */
function forVllm(
  environment: NodeJS.ProcessEnv,
  log: (message: string) => void,
): NodeJS.ProcessEnv {
  for (const name of ALLOCATOR) {
    if (environment[name]?.includes("expandable_segments:True") !== true) continue;
    log(`${name} is not passed on: with expandable segments vLLM's sleep frees nothing`);
    delete environment[name];
  }
  environment["VLLM_SERVER_DEV_MODE"] ??= "1";
  environment["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] ??= "True";
  return environment;
}
