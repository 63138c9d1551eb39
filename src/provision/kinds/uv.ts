import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CjmError } from "../../errors/index.ts";
import type { BuildContext, EnvironmentKind, EnvironmentSpec } from "../kind.ts";
import { addWorker, pipSteps, pythonInputs, pythonOf, pythonStart } from "../python-worker.ts";
import { findPython } from "../python.ts";
import { runCommand } from "../run-command.ts";
import { copyFiles, listSource } from "../source-files.ts";

/** uv, with the user's own uv configuration; a `uv.lock` beside the worker is installed as it is. */
export const uvKind: EnvironmentKind = {
  async inputs(spec, { env }) {
    return {
      ...(await pythonInputs(spec)),
      python: await findPython(spec.entry.python_version, env),
    };
  },

  async build(spec, folder, context) {
    const python = await findPython(spec.entry.python_version, context.env);
    context.step(`uv venv (python ${python.version})`);
    // The folder is there already and holds nothing.
    await uv(["venv", "--python", python.executable, "--allow-existing", folder], folder, context);
    if (isLocked(spec)) await syncLocked(spec, folder, context);
    for (const step of pipSteps(isLocked(spec) ? withoutProject(spec) : spec)) {
      context.step(`uv pip install ${step.join(" ")}`);
      await uv(["pip", "install", "--python", pythonOf(folder), ...step], folder, context);
    }
    await addWorker(spec, folder, context);
  },

  start: (spec: EnvironmentSpec, folder: string) => Promise.resolve(pythonStart(spec, folder)),
};

function isLocked({ sourceDir }: EnvironmentSpec): boolean {
  return sourceDir !== undefined && existsSync(join(sourceDir, "uv.lock"));
}

/** What the lock does not cover; the project itself is installed by `uv sync`. */
function withoutProject(spec: EnvironmentSpec): EnvironmentSpec {
  return { ...spec, sourceDir: undefined, requirementsFile: undefined };
}

/** From a copy: uv writes into the project it installs, and the source is the user's. */
async function syncLocked(
  spec: EnvironmentSpec,
  folder: string,
  context: BuildContext,
): Promise<void> {
  context.step("uv sync --frozen");
  const project = await mkdtemp(join(tmpdir(), "cjm-uv-"));
  try {
    await copyFiles(await listSource(spec.sourceDir ?? ""), project);
    const args = ["sync", "--frozen", "--no-dev", "--inexact", "--no-editable", "--active"];
    await uv([...args, "--project", project], folder, {
      ...context,
      env: { ...context.env, VIRTUAL_ENV: folder },
    });
  } finally {
    await rm(project, { recursive: true, force: true });
  }
}

async function uv(
  args: readonly string[],
  folder: string,
  { env, signal, log }: BuildContext,
): Promise<void> {
  try {
    await runCommand(["uv", ...args], { cwd: folder, env, signal, log });
  } catch (error) {
    if (!(error instanceof CjmError) || !/not found|ENOENT|No such file/u.test(error.message)) {
      throw error;
    }
    throw new CjmError(
      "SETUP_REQUIRED",
      "uv could not be run; install it, for example with `pip install uv`, or use `env: venv`",
      { cause: error },
    );
  }
}
