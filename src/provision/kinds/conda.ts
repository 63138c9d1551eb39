import { existsSync } from "node:fs";
import { rmdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { currentPlatform, type ResolvedConfig } from "../../config/index.ts";
import { CjmError } from "../../errors/index.ts";
import { download } from "../download.ts";
import type { BuildContext, EnvironmentKind, EnvironmentSpec } from "../kind.ts";
import { addWorker, pipSteps, pythonInputs, pythonStart } from "../python-worker.ts";
import { runCommand } from "../run-command.ts";
import { ownPip, pipInstall } from "./venv.ts";

const MAX_ENVIRONMENT_FILE_BYTES = 1024 * 1024;

/** conda, miniforge or micromamba; each environment is a prefix of its own, never a named one. */
export const condaKind: EnvironmentKind = {
  async inputs(spec, { config }) {
    return {
      ...(await pythonInputs(spec)),
      conda: condaProgram(config),
      python: spec.entry.python_version,
    };
  },

  async build(spec, folder, context) {
    await create(spec, folder, context);
    for (const step of pipSteps(spec)) {
      await pipInstall(ownPip(folder), step, { folder, context });
    }
    await addWorker(spec, folder, context);
  },

  start: (spec: EnvironmentSpec, folder: string) => Promise.resolve(pythonStart(spec, folder)),
};

/**
 * The conda program of the configuration: its binary for this platform, the one in the project's own
 * runtime (mode `local`), or the one of this type on PATH.
 */
export function condaProgram(config: ResolvedConfig): string {
  const { binaries, mode, prefix, condaType } = config.runtime;
  const configured = binaries[currentPlatform()];
  if (configured !== undefined) return configured;
  const name = condaType === "micromamba" ? "micromamba" : "conda";
  return mode === "local" ? join(prefix ?? defaultPrefix(config), "bin", name) : name;
}

function defaultPrefix({ dataDir }: ResolvedConfig): string {
  return join(dataDir, "runtime");
}

async function create(spec: EnvironmentSpec, folder: string, context: BuildContext): Promise<void> {
  const { config } = context;
  const isMicromamba = config.runtime.condaType === "micromamba";
  const file =
    spec.environmentFile === undefined
      ? undefined
      : await localFile(spec.environmentFile, folder, context);
  context.step(`${config.runtime.condaType} create${file === undefined ? "" : ` -f ${file}`}`);
  // Some of the programs refuse a folder that is there and is no environment yet.
  await rmdir(folder);
  const where = ["--yes", "--prefix", folder];
  if (file === undefined) {
    const python = `python=${spec.entry.python_version ?? "3"}`;
    return conda(["create", ...where, python, "pip"], folder, context);
  }
  // micromamba makes an environment from a file by `create`, the others by `env create`.
  const verb = isMicromamba ? ["create"] : ["env", "create"];
  return conda([...verb, ...where, "--file", file], folder, context);
}

async function conda(
  args: readonly string[],
  folder: string,
  { config, env, signal, log }: BuildContext,
): Promise<void> {
  const program = condaProgram(config);
  if (program.includes("/") && !existsSync(program)) {
    throw new CjmError(
      "SETUP_REQUIRED",
      `${program} is missing; run \`cjm-ctl setup-runtime\` or set runtime.binaries in cjm.yaml`,
    );
  }
  const { mode, condaType, prefix } = config.runtime;
  const root = mode === "local" ? rootOf(condaType, prefix ?? defaultPrefix(config)) : {};
  await runCommand([program, ...args], {
    cwd: dirname(folder),
    env: { ...env, ...root },
    signal,
    log,
  });
}

/** A project's own runtime keeps its packages below its prefix too. */
function rootOf(condaType: string, prefix: string): Record<string, string> {
  return condaType === "micromamba"
    ? { MAMBA_ROOT_PREFIX: prefix }
    : { CONDA_PKGS_DIRS: join(prefix, "pkgs") };
}

async function localFile(file: string, folder: string, { signal }: BuildContext): Promise<string> {
  if (!/^https?:\/\//u.test(file)) return file;
  const content = await download(file, MAX_ENVIRONMENT_FILE_BYTES, signal);
  const path = `${folder}.environment.yml`;
  await writeFile(path, content);
  return path;
}
