import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { expect } from "vitest";
import { z } from "zod";
import { runCli } from "../../support/cli.ts";

const TESTS = fileURLToPath(new URL("../qlora-trainer", import.meta.url));
const ROOT = join(TESTS, "../../..");
const PYTEST = "pytest==9.2.0";

/** Kept for the next run: the environment takes minutes to make. */
const KEPT = process.env["CJM_ML_DATA_DIR"] ?? join(ROOT, "node_modules/.cache/ml");
export const dataDir = join(KEPT, "host");

const manifestSchema = z.object({ install: z.object({ python_path: z.string() }) });

/** Installs the trainer as a user does. */
export async function installTrainer(): Promise<void> {
  const args = ["install-all", "--capabilities", "capabilities.ml.yaml", "--only", "qlora-trainer"];
  const install = await runCli(args, { dataDir });
  expect(install, install.stderr).toMatchObject({ exitCode: 0 });
}

/** Runs a Python program of the trainer's tests in the environment that was installed. */
export async function python(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const text = await readFile(join(dataDir, "manifests/qlora-trainer.json"), "utf8");
  const { install } = manifestSchema.parse(JSON.parse(text));
  const { stdout } = await execa(install.python_path, ["-W", "ignore", ...args], {
    cwd: TESTS,
    env: { PYTHONDONTWRITEBYTECODE: "1", HF_HUB_OFFLINE: "1", ...env },
    all: true,
  });
  return stdout;
}

/** What pytest prints; it is kept beside the environment, which has only what the trainer needs. */
export async function pytest(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<string> {
  const packages = join(KEPT, "pytest");
  if (!existsSync(packages)) {
    await mkdir(KEPT, { recursive: true });
    await python(["-m", "pip", "install", "--quiet", "--target", packages, PYTEST]);
  }
  const command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", ...args];
  return await python(command, { PYTHONPATH: packages, ...env });
}
