import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Call, z } from "cjm-substrate/worker";
import { casesAction } from "../../../workers/sandbox/cases-action.ts";
import { casesInputSchema, type CasesOutput } from "../../../workers/sandbox/cases-schema.ts";
import { runAction } from "../../../workers/sandbox/run-action.ts";
import { runInputSchema, type RunOutput } from "../../../workers/sandbox/schemas.ts";
import { testsAction } from "../../../workers/sandbox/tests-action.ts";
import { testsInputSchema, type TestsOutput } from "../../../workers/sandbox/tests-schema.ts";
import { Workbench, type WorkbenchOptions } from "../../../workers/sandbox/workbench.ts";

export const INTERPRETERS = { python: "python3", node: process.execPath, bash: "bash" };

/** A workbench and calls to it, as a worker would have them. */
export class Bench implements AsyncDisposable {
  readonly workbench: Workbench;
  readonly folder = mkdtempSync(join(tmpdir(), "cjm-sandbox-test-"));
  readonly progress: string[] = [];

  private constructor(workbench: Workbench) {
    this.workbench = workbench;
  }

  static async open(options: Partial<WorkbenchOptions> = {}): Promise<Bench> {
    return new Bench(
      await Workbench.open({ interpreters: INTERPRETERS, defaultLimits: {}, ...options }),
    );
  }

  run(input: z.input<typeof runInputSchema>, signal?: AbortSignal): Promise<RunOutput> {
    return runAction(this.workbench, runInputSchema.parse(input), this.call(signal));
  }

  check(input: z.input<typeof casesInputSchema>): Promise<CasesOutput> {
    return casesAction(this.workbench, casesInputSchema.parse(input), this.call());
  }

  test(input: z.input<typeof testsInputSchema>): Promise<TestsOutput> {
    return testsAction(this.workbench, testsInputSchema.parse(input), this.call());
  }

  /** All of a call that handlers use. */
  call(signal: AbortSignal = new AbortController().signal): Call {
    const ignore = (): void => undefined;
    return {
      config: {},
      signal,
      outputFolder: this.folder,
      dataFolder: this.folder,
      envelope: { control: {} },
      log: { debug: ignore, info: ignore, warning: ignore, error: ignore },
      progress: (_fraction, message = "") => void this.progress.push(message),
      usage: ignore,
      account: ignore,
      memory: ignore,
      heartbeat: (_message, work) => work(),
      invoke: () => Promise.reject(new Error("a bare call has no other actions")),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.workbench[Symbol.asyncDispose]();
    rmSync(this.folder, { recursive: true, force: true });
  }
}
