import { spawn, type ChildProcess } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { cagedCommand, WorkerConnection } from "../../../src/process/index.ts";
import type { Cage } from "../../../src/protocol/index.ts";
import type { GpuSource } from "../../../src/telemetry/index.ts";

const ROOT = join(import.meta.dirname, "../../..");
const FIXTURES = join(ROOT, "test/fixtures/gpu");
const ANYTHING = z.unknown();

/** The real monitor in its own process, on a scripted device in a folder of its own. */
export class MonitorWorker implements AsyncDisposable {
  readonly vramFolder: string;
  readonly connection: WorkerConnection;
  readonly #folder: string;

  private constructor(folder: string, connection: WorkerConnection) {
    this.#folder = folder;
    this.vramFolder = join(folder, "vram");
    this.connection = connection;
  }

  static async start(script: object): Promise<MonitorWorker> {
    const folder = mkdtempSync(join(tmpdir(), "monitor-"));
    writeFileSync(join(folder, "script.json"), JSON.stringify({ ...script, allocations: "vram" }));
    const connection = await WorkerConnection.start(
      {
        capability: "gpu-monitor",
        sessionId: randomUUID(),
        command: [
          process.execPath,
          "--import",
          join(FIXTURES, "from-source.ts"),
          join(ROOT, "workers/gpu-monitor/main.ts"),
        ],
        cwd: ROOT,
        env: {
          PATH: process.env["PATH"] ?? "",
          CJM_LISTEN: `unix:${join(folder, "w.sock")}`,
          CAPABILITY_DATA_DIR: folder,
        },
        cage: "group",
        startTimeoutMs: 20_000,
      },
      {
        frame: () => undefined,
        logs: () => undefined,
        output: () => undefined,
        note: () => undefined,
      },
    );
    const worker = new MonitorWorker(folder, connection);
    await worker.post("/initialize", { source: "scripted", script: join(folder, "script.json") });
    return worker;
  }

  async post(path: string, body: unknown): Promise<unknown> {
    return (await this.connection.post(path, body, ANYTHING)).value;
  }

  /** The worker's `watch`, as a host connects it. */
  source(): GpuSource {
    return {
      watch: (hz, signal) =>
        this.connection.stream("/execute_stream", { kwargs: { action: "watch", hz } }, { signal }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.connection.kill();
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A process that holds simulated memory until it is killed, in a cage or not. */
export class Holder implements AsyncDisposable {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  static async start(folder: string, gpu: string, bytes: number, cage: Cage): Promise<Holder> {
    const own = [process.execPath, join(FIXTURES, "hold-vram.ts"), folder, gpu, String(bytes)];
    const [command = "", ...args] = cagedCommand(cage, own);
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
    await once(child.stdout, "data");
    return new Holder(child);
  }

  /** As the host sees it: the root of the tree, not the holder inside its cage. */
  get pid(): number {
    return this.#child.pid ?? 0;
  }

  async kill(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    process.kill(-this.pid, "SIGKILL");
    await exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }
}
