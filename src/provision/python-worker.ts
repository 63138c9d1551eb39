import { readdir, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { hostPackage } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { BuildContext, EnvironmentSpec, WorkerStart } from "./kind.ts";
import { runCommand } from "./run-command.ts";
import { copyFiles, hashFiles, hashPackage, listSource } from "./source-files.ts";

/** The package of the original that its capabilities import. */
const ORIGINAL_SDK = "cjm-substrate";
const WORKER_FOLDER = "worker";

/** Everything of this machine that goes into a Python worker, its interpreter apart. */
export async function pythonInputs(spec: EnvironmentSpec): Promise<Record<string, unknown>> {
  const source = spec.sourceDir === undefined ? [] : await listSource(spec.sourceDir);
  const packages = [spec.entry.package ?? "", ...spec.requirements];
  const files = [spec.requirementsFile, spec.environmentFile].filter(
    (path) => path !== undefined && existsSync(path),
  );
  return {
    source: await hashFiles(source),
    packages: await Promise.all(packages.map(hashPackage)),
    files: await hashFiles(files.map((path) => ({ name: path ?? "", path: path ?? "" }))),
    sdk: await sdkInput(spec),
  };
}

async function sdkInput(spec: EnvironmentSpec): Promise<string> {
  if (spec.substrateSource !== undefined) return spec.substrateSource;
  return spec.isOriginal ? ORIGINAL_SDK : hashFiles(await listSource(sdkFolder()));
}

function sdkFolder(): string {
  const folder = join(hostPackage().root, "python", "src", "cjm_worker");
  if (existsSync(folder)) return folder;
  throw new CjmError("SETUP_REQUIRED", `${folder} is missing: this package is not complete`);
}

/** The pip arguments of each installation an environment needs, in order. */
export function pipSteps(spec: EnvironmentSpec): readonly (readonly string[])[] {
  const { requirementsFile, substrateSource, isOriginal } = spec;
  const sdk = substrateSource ?? (isOriginal ? ORIGINAL_SDK : undefined);
  const project = isProject(spec.sourceDir) ? [spec.sourceDir ?? ""] : [];
  const together = [
    ...(sdk === undefined ? [] : specArguments(sdk)),
    ...spec.requirements.flatMap(specArguments),
    ...specArguments(spec.entry.package ?? ""),
    ...project,
  ];
  // A file with hashes makes pip ask for hashes of all it is told, so nothing else goes with it.
  return [
    ...(requirementsFile === undefined ? [] : [["-r", requirementsFile]]),
    ...(together.length === 0 ? [] : [together]),
  ];
}

function specArguments(spec: string): string[] {
  if (spec === "") return [];
  const editable = /^-e\s+(?<path>.+)$/u.exec(spec)?.groups?.["path"];
  return editable === undefined ? [spec] : ["-e", editable];
}

function isProject(folder: string | undefined): boolean {
  if (folder === undefined) return false;
  return existsSync(join(folder, "pyproject.toml")) || existsSync(join(folder, "setup.py"));
}

/** Puts the SDK and the worker's source into an environment whose packages are installed. */
export async function addWorker(
  spec: EnvironmentSpec,
  folder: string,
  context: BuildContext,
): Promise<void> {
  const site = await sitePackages(folder);
  const compiled: string[] = [];
  if (!spec.isOriginal && spec.substrateSource === undefined) {
    context.step("adding cjm_worker");
    await copyFiles(await listSource(sdkFolder()), join(site, "cjm_worker"));
    compiled.push(join(site, "cjm_worker"));
  }
  if (spec.sourceDir !== undefined && !isProject(spec.sourceDir)) {
    context.step("copying the worker");
    const target = join(folder, WORKER_FOLDER);
    await copyFiles(await listSource(spec.sourceDir), target);
    await writeFile(join(site, "cjm_capability.pth"), `${target}\n`);
    compiled.push(target);
  }
  if (compiled.length === 0) return;
  const { env, signal, log } = context;
  const command = [pythonOf(folder), "-m", "compileall", "-q", ...compiled];
  await runCommand(command, { cwd: folder, env, signal, log });
}

export function pythonOf(folder: string): string {
  return join(folder, "bin", "python");
}

async function sitePackages(folder: string): Promise<string> {
  const versions = await readdir(join(folder, "lib"));
  const version = versions.find((name) => /^python\d+\.\d+$/u.test(name));
  if (version !== undefined) return join(folder, "lib", version, "site-packages");
  throw new CjmError("INSTALL_FAILED", `${folder}/lib holds no Python`);
}

/** How a Python worker in `folder` is started and asked what it is. */
export function pythonStart(spec: EnvironmentSpec, folder: string): WorkerStart {
  const python = pythonOf(folder);
  if (spec.isOriginal) {
    const script = join(hostPackage().root, "python", "introspect", "capability.py");
    const module = moduleOfPackage(spec.entry.package ?? "");
    return { command: undefined, introspect: [python, script, module], pythonPath: python };
  }
  const entry = spec.entry.entry ?? "main.py";
  if (entry.endsWith(".py")) {
    const command = [python, join(folder, WORKER_FOLDER, entry)];
    return { command, introspect: command, pythonPath: python };
  }
  return {
    command: [python, "-m", "cjm_worker", entry],
    introspect: [python, "-m", "cjm_worker.introspect", entry],
    pythonPath: python,
  };
}

/** The module a package of the original holds, by its rule: the name with `_` for `-`. */
export function moduleOfPackage(spec: string): string {
  const bare = spec.replace(/^-e\s+/u, "");
  const isAddress = bare.startsWith("git+") || bare.includes("/");
  const name = isAddress
    ? (bare
        .replace(/#.*$/u, "")
        .split("/")
        .findLast((part) => part !== "") ?? "")
    : (bare.split(/[=<>!~[; ]/u, 1)[0] ?? "");
  return name
    .replace(/\.git(?:@.*)?$/u, "")
    .trim()
    .replaceAll("-", "_");
}
