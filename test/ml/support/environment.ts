import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { z } from "zod";
import { runCli } from "../../support/cli.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const PYTEST = "pytest==9.2.0";

/** Kept for the next run: the environments take minutes to make. */
const KEPT = process.env["CJM_ML_DATA_DIR"] ?? join(ROOT, "node_modules/.cache/ml");

/** The data directory of the host that all torch tests share. */
export const dataDir = join(KEPT, "host");

/** Time that installing may take, in milliseconds. */
export const INSTALL_MS = 1_200_000;

const manifestSchema = z.object({ install: z.object({ python_path: z.string() }) });

export interface PythonRun {
  /** Working folder; the repository unless given. */
  readonly cwd?: string;
  /** Folders to import from before the environment's own. */
  readonly path?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/**
 * The environments of capabilities.ml.yaml, made where they are not there yet; a second call takes a
 * fraction of a second.
 *
 * @throws Error with what the installer printed
 */
export async function installEnvironments(): Promise<void> {
  const args = ["install-all", "--capabilities", "capabilities.ml.yaml"];
  const install = await runCli(args, { dataDir });
  if (install.exitCode !== 0) throw new Error(`install-all failed:\n${install.stderr}`);
}

/** The interpreter in a capability's environment. */
export async function pythonOf(capability: string): Promise<string> {
  const text = await readFile(join(dataDir, `manifests/${capability}.json`), "utf8");
  return manifestSchema.parse(JSON.parse(text)).install.python_path;
}

/** Runs Python in a capability's environment and gives what it printed. */
export async function runPython(
  capability: string,
  args: readonly string[],
  { cwd = ROOT, path = [], env = {} }: PythonRun = {},
): Promise<string> {
  const { stdout } = await execa(await pythonOf(capability), ["-W", "ignore", ...args], {
    cwd,
    env: {
      PYTHONPATH: path.join(delimiter),
      PYTHONDONTWRITEBYTECODE: "1",
      HF_HUB_OFFLINE: "1",
      ...env,
    },
    all: true,
  });
  return stdout;
}

/** Runs the Python tests of a folder in a capability's environment; what pytest printed. */
export async function runPytest(
  capability: string,
  folder: string,
  {
    args = [],
    env = {},
  }: { args?: readonly string[]; env?: Readonly<Record<string, string>> } = {},
): Promise<string> {
  // Apart from every environment, so that none has more in it than its users get.
  const packages = join(KEPT, "pytest");
  if (!existsSync(packages)) {
    await mkdir(KEPT, { recursive: true });
    const pip = ["-m", "pip", "--python", await pythonOf(capability)];
    await execa("python3", [...pip, "install", "--quiet", "--target", packages, PYTEST]);
  }
  const command = ["-m", "pytest", "-q", "-p", "no:cacheprovider", ...args];
  return runPython(capability, command, { cwd: folder, path: [packages], env });
}

const tinySchema = z.object({ base: z.string(), swapped: z.string(), polite: z.string() });

/** Folders of the tiny trained model and its two adapters, made where they are not there yet. */
export async function tinyLlm(capability: string): Promise<z.output<typeof tinySchema>> {
  const printed = await runPython(capability, [join(ROOT, "test/ml/support/tiny_llm.py")]);
  return tinySchema.parse(JSON.parse(printed.trimEnd().split("\n").at(-1) ?? ""));
}
