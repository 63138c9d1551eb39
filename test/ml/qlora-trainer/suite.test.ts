import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { runCli, temporaryFolder } from "../../support/cli.ts";
import {
  dataDir,
  installEnvironments,
  INSTALL_MS,
  runPytest,
  runPython,
} from "../support/environment.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const COMPOSITION = "test/fixtures/qlora-trainer/composition.yaml";
const NAME = "qlora-trainer";

const doneSchema = z.object({
  status: z.string(),
  results: z.object({
    plan: z.object({ steps: z.number(), supervised_tokens: z.number() }),
    train: z.object({
      steps: z.number(),
      first_loss: z.number(),
      final_loss: z.number(),
      weights_sha256: z.string(),
      adapter: z.object({ data: z.object({ path: z.string() }) }),
      metrics: z.object({ data: z.object({ path: z.string() }) }),
    }),
    answers: z.object({ rows: z.number(), exact_match: z.number() }),
  }),
});

describe("qlora-trainer", () => {
  beforeAll(installEnvironments, INSTALL_MS);

  test("does in its installed environment what its own tests say", async () => {
    const printed = await runPytest(NAME, HERE);
    expect(printed).toMatch(/\d+ passed/u);
    expect(printed).not.toMatch(/failed|skipped/u);
  }, 900_000);

  test("plans, trains and asks under the real host", async () => {
    await using folder = await temporaryFolder();
    await runPython(NAME, ["make_base.py", folder.path], { cwd: HERE });
    const inputs = ["model=base", "data=train.jsonl", "questions=questions.jsonl"].flatMap(
      (input) => ["--set", input.replace("=", `=${folder.path}/`)],
    );
    const run = await runCli(["run", COMPOSITION, "--json", ...inputs], { dataDir });
    expect(run.exitCode, run.stderr).toBe(0);
    const done = doneSchema.parse(JSON.parse(run.stdout));
    const { plan, train, answers } = done.results;
    expect(done.status).toBe("completed");
    expect(train.steps).toBe(plan.steps);
    expect(train.final_loss).toBeLessThan(train.first_loss / 4);
    expect(answers.exact_match).toBeGreaterThanOrEqual(0.5);
    const metrics = (await readFile(train.metrics.data.path, "utf8")).trim().split("\n");
    expect(metrics).toHaveLength(train.steps);
    expect(existsSync(join(train.adapter.data.path, "adapter_config.json"))).toBe(true);
  }, 300_000);
});
