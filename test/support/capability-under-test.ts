import { createWorkerApp, type WorkerApp } from "../../src/worker/index.ts";
import type { Capability } from "../../src/worker/capability.ts";

/** What a call was refused with, as the host gets it. */
export class CallRefused extends Error {
  /** Name of the error class in the worker. */
  readonly kind: string;
  readonly code: string;

  constructor(error: { code: string; message: string; original_exc_repr: string }) {
    super(error.message);
    this.code = error.code;
    this.kind = error.original_exc_repr.split(":")[0] ?? "";
  }
}

interface Account {
  readonly type: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

/** A capability behind its whole HTTP surface, without a process; inputs and outputs are checked. */
export class CapabilityUnderTest {
  readonly accounts: Account[] = [];
  readonly #app: WorkerApp;
  readonly #outputFolder: string;
  #calls = 0;

  private constructor(capability: Capability, outputFolder: string) {
    this.#outputFolder = outputFolder;
    this.#app = createWorkerApp(capability, {
      sink: {
        send: (frame) => {
          if (frame.type === "account") {
            this.accounts.push({ type: frame.event_type, payload: frame.payload ?? {} });
          }
        },
      },
    });
  }

  static async start(
    capability: Capability,
    { config = {}, outputFolder }: { readonly config?: object; readonly outputFolder: string },
  ): Promise<CapabilityUnderTest> {
    const started = new CapabilityUnderTest(capability, outputFolder);
    await started.#post("/initialize", config);
    return started;
  }

  /** Runs an action; each call has an output folder and, unless it is given, a job of its own. */
  async call(action: string, kwargs: object = {}, jobId?: string): Promise<Answer> {
    this.#calls += 1;
    const envelope = {
      job_id: jobId ?? `job-${this.#calls}`,
      output_folder: `${this.#outputFolder}/${this.#calls}`,
    };
    return new Answer(await this.#post("/execute", { kwargs: { action, ...kwargs }, envelope }));
  }

  async stop(): Promise<void> {
    await this.#post("/cleanup", {});
  }

  async #post(path: string, body: unknown): Promise<unknown> {
    const response = await this.#app.request(path, { method: "POST", body: JSON.stringify(body) });
    const answer: unknown = await response.json();
    if (response.ok) return answer;
    throw new CallRefused((answer as { _job_error: never })._job_error);
  }
}

/** The JSON that a call gave. */
export class Answer {
  readonly value: unknown;

  constructor(value: unknown) {
    this.value = value;
  }

  /** What is at a dotted path; a test that expects something else there fails by its assertion. */
  // oxlint-disable-next-line typescript/no-unnecessary-type-parameters -- a cast that names what the test expects
  at<Expected = unknown>(path: string): Expected {
    let value: unknown = this.value;
    for (const key of path.split(".")) value = (value as Record<string, unknown> | null)?.[key];
    return value as Expected;
  }
}
