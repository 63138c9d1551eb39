import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";
import {
  buildWorkerEnvironment,
  identify,
  isAlive,
  processTree,
  type ProcessIdentity,
  SessionNames,
  WorkerConnection,
  type WorkerSink,
  type WorkerSpec,
} from "../../../src/process/index.ts";
import {
  type Cage,
  notAFrame,
  readLogFrames,
  statusReplySchema,
  type WorkerFrame,
} from "../../../src/protocol/index.ts";
import { type LineBlock, outputTexts } from "../../../src/util/lines.ts";

export const ROOT = fileURLToPath(new URL("../../../", import.meta.url));

export function fixtureCommand(name: string): readonly string[] {
  const script = join(ROOT, "test/fixtures/workers", `${name}.ts`);
  return [process.execPath, "-C", "@cjm/source", script];
}

/** Everything a worker sent, and a way to wait for something of it. */
export class Recorder implements WorkerSink {
  readonly frames: WorkerFrame[] = [];
  readonly lines: { readonly stream: "stdout" | "stderr"; readonly line: string }[] = [];
  readonly notes: string[] = [];
  readonly #waiting = new Set<() => void>();

  frame(frame: WorkerFrame): void {
    this.frames.push(frame);
    this.#announce();
  }

  logs({ bytes, count }: LineBlock): void {
    for (const frame of readLogFrames(bytes, count)) {
      if (typeof frame === "string") this.notes.push(notAFrame(frame));
      else this.frames.push({ type: "log", ...frame, job_id: frame.jobId });
    }
    this.#announce();
  }

  output(stream: "stdout" | "stderr", { bytes }: LineBlock): void {
    for (const line of outputTexts(bytes)) this.lines.push({ stream, line });
    this.#announce();
  }

  note(message: string): void {
    this.notes.push(message);
    this.#announce();
  }

  async until(fits: () => boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const check = (): void => {
      if (fits()) resolve();
    };
    this.#waiting.add(check);
    check();
    await promise;
    this.#waiting.delete(check);
  }

  #announce(): void {
    for (const check of this.#waiting) check();
  }
}

/** A host's corner of the machine for one test: folder, session names, recorded output. */
export class Workbench implements AsyncDisposable {
  readonly folder: string;
  readonly recorder = new Recorder();
  readonly #sessions: SessionNames;

  private constructor(folder: string) {
    this.folder = folder;
    this.#sessions = new SessionNames(folder);
  }

  static async create(): Promise<Workbench> {
    return new Workbench(await mkdtemp(join(tmpdir(), "cjm-p-")));
  }

  spec(
    capability: string,
    command: readonly string[],
    overrides: Partial<WorkerSpec> = {},
  ): WorkerSpec {
    return {
      capability,
      sessionId: this.#sessions.next(),
      command,
      cwd: ROOT,
      env: buildWorkerEnvironment({
        host: process.env,
        pass: [],
        install: {},
        declared: {},
        protocol: {
          CJM_PROTOCOL: "1",
          CJM_LISTEN: `unix:${join(this.folder, "w.sock")}`,
          CAPABILITY_DATA_DIR: this.folder,
          CJM_CAPABILITY_DATA_DIR: this.folder,
        },
      }),
      cage: "pidns",
      // Never reached: a wait that would never end is ended by the test's own limit.
      startTimeoutMs: 25_000,
      ...overrides,
    };
  }

  /** A fixture worker that has been initialized. */
  async start(capability: string, fixture: string, cage: Cage): Promise<WorkerConnection> {
    const spec = this.spec(capability, fixtureCommand(fixture), { cage });
    const connection = await WorkerConnection.start(spec, this.recorder);
    await connection.post("/initialize", {}, statusReplySchema);
    return connection;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** The body of a call of an action. */
export function call(action: string, kwargs: Readonly<Record<string, unknown>> = {}): unknown {
  return { args: [], kwargs: { ...kwargs, action }, envelope: { job_id: `job-${action}` } };
}

/** Every process of a worker now, so that it can be told later whether one is left. */
export function population(pid: number): ProcessIdentity[] {
  return processTree(pid).flatMap((member) => identify(member) ?? []);
}

/** The kernel tells nobody but its parent that a process is gone. */
export async function gone(members: readonly ProcessIdentity[]): Promise<void> {
  while (members.some(isAlive)) await new Promise((resolve) => setTimeout(resolve, 10));
}

/** Matches a text that holds `part`. */
export function containing(part: string): unknown {
  return expect.stringContaining(part);
}
