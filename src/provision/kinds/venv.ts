import type { BuildContext, EnvironmentKind, EnvironmentSpec } from "../kind.ts";
import { addWorker, pipSteps, pythonInputs, pythonOf, pythonStart } from "../python-worker.ts";
import { findPython } from "../python.ts";
import { runCommand } from "../run-command.ts";

/** `python -m venv` and pip, with the user's own pip configuration. */
export const venvKind: EnvironmentKind = {
  async inputs(spec, { env }) {
    return {
      ...(await pythonInputs(spec)),
      python: await findPython(spec.entry.python_version, env),
    };
  },

  async build(spec, folder, context) {
    const python = await findPython(spec.entry.python_version, context.env);
    context.step(`python ${python.version} -m venv`);
    await execute([python.executable, "-m", "venv", folder], folder, context);
    for (const step of pipSteps(spec)) await pipInstall(step, folder, context);
    await addWorker(spec, folder, context);
  },

  start: (spec: EnvironmentSpec, folder: string) => Promise.resolve(pythonStart(spec, folder)),
};

/** Installs with the pip of the environment. */
export async function pipInstall(
  packages: readonly string[],
  folder: string,
  context: BuildContext,
): Promise<void> {
  context.step(`pip install ${packages.join(" ")}`);
  const quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"];
  await execute([pythonOf(folder), "-m", "pip", "install", ...quiet, ...packages], folder, context);
}

async function execute(
  command: readonly string[],
  folder: string,
  { env, signal, log }: BuildContext,
): Promise<void> {
  await runCommand(command, { cwd: folder, env, signal, log });
}
