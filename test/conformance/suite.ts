import type { Case } from "./case.ts";
import { calling } from "./cases/calls.ts";
import { asking, guarding, living } from "./cases/life.ts";
import { adapting, bounding, cancelling, reporting, streaming } from "./cases/running.ts";
import { introspectionCase, startAndEnd } from "./cases/start.ts";
import type { Target } from "./worker-under-test.ts";
import { WorkerUnderTest, type StartOptions } from "./worker-under-test.ts";

/** Every case for a target, in groups whose order a worker's shared state allows. */
export function casesFor(target: Target): readonly Case[] {
  return [
    ...guarding,
    ...asking,
    ...living,
    ...calling,
    ...cancelling,
    ...streaming,
    ...reporting,
    ...bounding,
    ...adapting,
    introspectionCase(target),
    ...startAndEnd,
  ];
}

/** Runs cases against one target: on a shared worker, or on workers of their own. */
export class Suite implements AsyncDisposable {
  readonly target: Target;
  #shared: Promise<WorkerUnderTest> | undefined;

  constructor(target: Target) {
    this.target = target;
  }

  /** Rejects with the assertion that failed. */
  async run(test: Case): Promise<void> {
    if (test.run !== undefined) {
      this.#shared ??= WorkerUnderTest.start(this.target);
      await test.run(await this.#shared);
      return;
    }
    const started: WorkerUnderTest[] = [];
    try {
      await test.fresh(async (options = {}) => {
        const worker = await WorkerUnderTest.start(this.target, this.#withSpecs(options));
        started.push(worker);
        return worker;
      });
    } finally {
      for (const worker of started) await worker[Symbol.asyncDispose]();
    }
  }

  /** Cases name adapters by what they do; the target knows their specs. */
  #withSpecs(options: StartOptions): StartOptions {
    const named = options.env?.["CJM_ADAPTERS"];
    const specs: Readonly<Record<string, string>> = { ...this.target.adapters };
    if (named === undefined) return options;
    const list = named.split(",").map((name) => specs[name] ?? name);
    return { ...options, env: { ...options.env, CJM_ADAPTERS: list.join(",") } };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const worker = await this.#shared?.catch(() => undefined);
    await worker?.[Symbol.asyncDispose]();
  }
}
