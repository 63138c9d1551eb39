import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { runCli, temporaryFolder } from "../../support/cli.ts";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const ROOT = join(HERE, "../../..");
const COMPOSITION = "test/fixtures/qlora-trainer/composition.yaml";
const PYTEST = "pytest==9.2.0";

/** The data directory is kept for the next run: the environment takes minutes to make. */
const KEPT = process.env["CJM_ML_DATA_DIR"] ?? join(ROOT, "node_modules/.cache/ml");
const dataDir = join(KEPT, "host");

const manifestSchema = z.object({ install: z.object({ python_path: z.string() }) });
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

async function installedPython(): Promise<string> {
  const text = await readFile(join(dataDir, "manifests/qlora-trainer.json"), "utf8");
  return manifestSchema.parse(JSON.parse(text)).install.python_path;
}

/** Runs a Python program of this folder in the environment that was installed. */
async function python(args: readonly string[], path: readonly string[] = []): Promise<string> {
  const { stdout } = await execa(await installedPython(), ["-W", "ignore", ...args], {
    cwd: HERE,
    env: { PYTHONPATH: path.join(":"), PYTHONDONTWRITEBYTECODE: "1", HF_HUB_OFFLINE: "1" },
    all: true,
  });
  return stdout;
}

describe("qlora-trainer", () => {
  beforeAll(async () => {
    const install = await runCli(["install-all", "--capabilities", "capabilities.ml.yaml"], {
      dataDir,
    });
    expect(install, install.stderr).toMatchObject({ exitCode: 0 });
  }, 1_200_000);

  test("does in its installed environment what its own tests say", async () => {
    const packages = join(KEPT, "pytest");
    if (!existsSync(packages)) {
      await mkdir(KEPT, { recursive: true });
      await python(["-m", "pip", "install", "--quiet", "--target", packages, PYTEST]);
    }
    const printed = await python(["-m", "pytest", "-q", "-p", "no:cacheprovider"], [packages]);
    expect(printed).toMatch(/\d+ passed/u);
    expect(printed).not.toMatch(/failed|skipped/u);
  }, 900_000);

  test("plans, trains and asks under the real host", async () => {
    await using folder = await temporaryFolder();
    await python(["make_base.py", folder.path]);
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
