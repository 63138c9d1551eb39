import { existsSync } from "node:fs";
import { glob, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { runCli, startCli, temporaryFolder } from "../../support/cli.ts";
import {
  dataDir,
  installEnvironments,
  INSTALL_MS,
  runPytest,
  runPython,
} from "../support/environment.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const NAME = "qlora-trainer";

const COMPOSITION = "test/fixtures/qlora-trainer/composition.yaml";

const doneSchema = z.object({
  status: z.string(),
  results: z.object({
    plan: z.object({ steps: z.number(), supervised_tokens: z.number() }),
    train: z.object({
      steps: z.number(),
      steps_executed: z.number(),
      resumed_from_step: z.number().nullable(),
      first_loss: z.number(),
      final_loss: z.number(),
      weights_sha256: z.string(),
      adapter: z.object({ data: z.object({ path: z.string() }) }),
      metrics: z.object({ data: z.object({ path: z.string() }) }),
    }),
    answers: z.object({ rows: z.number(), exact_match: z.number() }),
  }),
});
type Results = z.output<typeof doneSchema>["results"];

/** A folder with a tiny base model and rows to learn, and the inputs that name them. */
async function withInputs(): Promise<
  AsyncDisposable & { readonly path: string; readonly set: readonly string[] }
> {
  const folder = await temporaryFolder();
  await runPython(NAME, ["make_base.py", folder.path], { cwd: HERE });
  const set = ["model=base", "data=train.jsonl", "questions=questions.jsonl"].flatMap((input) => [
    "--set",
    input.replace("=", `=${folder.path}/`),
  ]);
  return { ...folder, set };
}

function resultsOf(stdout: string): Results {
  const { status, results } = doneSchema.parse(JSON.parse(stdout));
  expect(status).toBe("completed");
  return results;
}

const checkpoints = (): Promise<string[]> => Array.fromAsync(glob(`${dataDir}/**/runs/*/step-*`));

describe("qlora-trainer", () => {
  beforeAll(installEnvironments, INSTALL_MS);

  test("does in its installed environment what its own tests say", async () => {
    const printed = await runPytest(NAME, HERE);
    expect(printed).toMatch(/\d+ passed/u);
    expect(printed).not.toMatch(/failed|skipped/u);
  }, 900_000);

  test("plans, trains and asks under the real host; killed in the middle, it resumes to the bit", async () => {
    await using inputs = await withInputs();
    const run = await runCli(["run", COMPOSITION, "--json", ...inputs.set], { dataDir });
    expect(run.exitCode, run.stderr).toBe(0);
    const whole = resultsOf(run.stdout);
    expect(whole.train.steps).toBe(whole.plan.steps);
    expect(whole.train.final_loss).toBeLessThan(whole.train.first_loss / 4);
    expect(whole.answers.exact_match).toBeGreaterThanOrEqual(0.5);
    const metrics = (await readFile(whole.train.metrics.data.path, "utf8")).trim().split("\n");
    expect(metrics).toHaveLength(whole.train.steps);
    expect(existsSync(join(whole.train.adapter.data.path, "adapter_config.json"))).toBe(true);

    const before = new Set(await checkpoints());
    const killed = startCli(["run", COMPOSITION, "--json", ...inputs.set], { dataDir });
    await expect
      .poll(async () => (await checkpoints()).some((path) => !before.has(path)), {
        timeout: 120_000,
      })
      .toBe(true);
    killed.kill("SIGKILL");
    expect((await killed).signal).toBe("SIGKILL");

    const resumed = await runCli(["resume", "--json"], { dataDir });
    expect(resumed.exitCode, resumed.stderr).toBe(0);
    const { train } = resultsOf(resumed.stdout);
    expect(train.resumed_from_step).toBeGreaterThan(0);
    expect(train.steps_executed).toBeLessThan(whole.train.steps);
    expect(train.weights_sha256).toBe(whole.train.weights_sha256);
  }, 300_000);
});
