import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { BuildContext, EnvironmentKind, EnvironmentSpec } from "../kind.ts";
import { addWorker, pipSteps, pythonInputs, pythonOf, pythonStart } from "../python-worker.ts";
import { findPython } from "../python.ts";
import { runCommand } from "../run-command.ts";

const run = promisify(execFile);
/** The first pip that can install into another environment. */
const OLDEST_LENDING_PIP = "22.3";
const ASK_MS = 30_000;

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
    // To unpack a pip into each environment takes longer than all else of a small one.
    const isLent = await canLendPip(python.executable, context.env);
    context.step(`python ${python.version} -m venv`);
    const options = isLent ? ["--without-pip"] : [];
    await execute([python.executable, "-m", "venv", ...options, folder], folder, context);
    const pip = isLent ? lentPip(python.executable, folder) : ownPip(folder);
    for (const step of pipSteps(spec)) await pipInstall(pip, step, { folder, context });
    await addWorker(spec, folder, context);
  },

  start: (spec: EnvironmentSpec, folder: string) => Promise.resolve(pythonStart(spec, folder)),
};

/** The command of the environment's own pip. */
export function ownPip(folder: string): readonly string[] {
  return [pythonOf(folder), "-m", "pip"];
}

function lentPip(executable: string, folder: string): readonly string[] {
  return [executable, "-m", "pip", "--python", pythonOf(folder)];
}

async function canLendPip(executable: string, env: NodeJS.ProcessEnv): Promise<boolean> {
  try {
    // Isolated: a `pip.py` in the working directory is not meant.
    const ask = ["-I", "-c", "import pip; print(pip.__version__)"];
    const { stdout } = await run(executable, ask, { env, timeout: ASK_MS });
    return stdout.trim().localeCompare(OLDEST_LENDING_PIP, undefined, { numeric: true }) >= 0;
  } catch {
    return false;
  }
}

/** Installs into the environment at `folder`. */
export async function pipInstall(
  pip: readonly string[],
  packages: readonly string[],
  { folder, context }: { readonly folder: string; readonly context: BuildContext },
): Promise<void> {
  context.step(`pip install ${packages.join(" ")}`);
  const quiet = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"];
  await execute([...pip, "install", ...quiet, ...packages], folder, context);
}

async function execute(
  command: readonly string[],
  folder: string,
  { env, signal, log }: BuildContext,
): Promise<void> {
  await runCommand(command, { cwd: folder, env, signal, log });
}
