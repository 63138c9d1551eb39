import { realpath, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import {
  hostPackage,
  installedManifestsDir,
  loadManifests,
  writeAdapterManifest,
  writeManifest,
  type DiscoveredManifest,
  type ResolvedConfig,
} from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { AdapterManifest } from "../protocol/index.ts";
import { closest } from "../util/suggest.ts";
import { environmentsOf, removeOthers } from "./environment-folder.ts";
import { foldersInUse } from "./in-use.ts";
import { InstallLog } from "./install-log.ts";
import { adapterFile, codeOf, driftOf } from "./manifest-sections.ts";
import { adapterCommand, introspect, introspectAdapter } from "./introspect.ts";
import type { BuildContext, WorkerStart } from "./kind.ts";
import { lockInstallation } from "./lock.ts";
import { moduleOfPackage } from "./python-worker.ts";

export interface InstalledOptions {
  readonly config: ResolvedConfig;
  readonly signal?: AbortSignal | undefined;
  /** @default process.env */
  readonly env?: NodeJS.ProcessEnv | undefined;
}

/**
 * Asks an installed worker again what it is and writes its manifest anew; the install section, with
 * the time it was installed, and the operator's overrides stay as they are. Resolves to its path.
 *
 * @param packageSource Names the package of an original's worker whose manifest has none.
 * @throws {CjmError} `CAPABILITY_NOT_INSTALLED`, `INSTALL_FAILED`, `DATA_DIR_LOCKED`.
 */
export async function regenerateManifest(
  name: string,
  options: InstalledOptions & { readonly packageSource?: string | undefined },
): Promise<string> {
  using _lock = lockInstallation(options.config.dataDir);
  const { manifest, path } = await findInstalled(name, options.config);
  await using log = logOf(options.config, name);
  const install = {
    ...manifest.install,
    ...(options.packageSource !== undefined && { package_source: options.packageSource }),
  };
  const start = startOf({ ...manifest, install });
  const worker = { name: manifest.code.name, isOriginal: start.command === undefined };
  const described = { ...start, env: install.env_vars };
  const code = await introspect(worker, described, contextOf(options, log));
  await writeManifest(path, {
    format_version: "2.0",
    install,
    code: codeOf(code, manifest.code.code_hash, new Date().toISOString()),
    drift_tracking: driftOf(code),
    overrides: manifest.overrides,
  });
  return path;
}

/**
 * Describes a task adapter inside an installed environment and writes its manifest.
 *
 * @param environment Name of a capability, or of its environment in the original (`env_name`).
 * @param target The adapter's class as `module:ClassName`.
 */
export async function generateAdapterManifest(
  environment: string,
  target: string,
  options: InstalledOptions,
): Promise<{ readonly path: string; readonly manifest: AdapterManifest }> {
  using _lock = lockInstallation(options.config.dataDir);
  const { manifest, name } = await findInstalled(environment, options.config);
  const { python_path: python, conda_env, env_vars } = manifest.install;
  if (python === "") {
    throw new CjmError(
      "INSTALL_FAILED",
      `"${name}" has no Python; its adapters are its own tasks`,
      {
        category: "user_input",
      },
    );
  }
  await using log = logOf(options.config, name);
  const isOriginal = manifest.code.sdk !== "cjm";
  const start = {
    command: undefined,
    introspect: adapterCommand(python, target, isOriginal),
    env: env_vars,
  };
  const found = await introspectAdapter(name, start, contextOf(options, log));
  const written = { ...found, conda_env, generated_at: new Date().toISOString() };
  const path = join(installedManifestsDir(options.config), adapterFile(written));
  await writeAdapterManifest(path, written);
  return { path, manifest: written };
}

export interface Removed {
  readonly manifests: readonly string[];
  readonly folders: readonly string[];
  /** Folders that a running process still uses; the next installation removes them. */
  readonly inUse: readonly string[];
}

/**
 * Removes a capability's manifest, those of its adapters, and its environments.
 *
 * @throws {CjmError} `CAPABILITY_NOT_INSTALLED`, `DATA_DIR_LOCKED`.
 */
export async function removeCapability(
  name: string,
  { config, keepEnvironment = false }: InstalledOptions & { readonly keepEnvironment?: boolean },
): Promise<Removed> {
  using _lock = lockInstallation(config.dataDir);
  const { manifest, path } = await findInstalled(name, config);
  const named = manifest.install["adapter_manifests"];
  const adapters = (Array.isArray(named) ? named.map(String) : []).map((file) =>
    join(installedManifestsDir(config), basename(file)),
  );
  const manifests = [path, ...adapters];
  for (const file of manifests) await rm(file, { force: true });
  if (keepEnvironment) return { manifests, folders: [], inUse: [] };
  const isUsed = await foldersInUse();
  const inUse: string[] = [];
  const folders = await removeOthers(
    environmentsOf(config.dataDir, manifest.code.name),
    async (folder) => {
      // A worker is known by the path without links.
      if (!isUsed(await realpath(folder))) return false;
      inUse.push(folder);
      return true;
    },
  );
  return { manifests, folders, inUse };
}

async function findInstalled(name: string, config: ResolvedConfig): Promise<DiscoveredManifest> {
  const { capabilities } = await loadManifests([installedManifestsDir(config)]);
  const found =
    capabilities.get(name) ??
    [...capabilities.values()].find(({ manifest }) => manifest.install.conda_env === name);
  if (found !== undefined) return found;
  const meant = closest(name, capabilities.keys());
  const hint = meant === undefined ? "" : `; did you mean "${meant}"?`;
  throw new CjmError(
    "CAPABILITY_NOT_INSTALLED",
    `${installedManifestsDir(config)} holds no manifest of "${name}"${hint}`,
  );
}

/** How an installed worker is asked what it is. */
function startOf({ install }: DiscoveredManifest["manifest"]): WorkerStart {
  const { command, python_path: python } = install;
  if (command === undefined) {
    const script = join(hostPackage().root, "python", "introspect", "capability.py");
    const module = moduleOfPackage(install.package_source);
    return { command, introspect: [python, script, module], pythonPath: python };
  }
  const describe = command.map((part) => (part === "cjm_worker" ? "cjm_worker.introspect" : part));
  return { command, introspect: describe, pythonPath: python };
}

function logOf(config: ResolvedConfig, name: string): InstallLog {
  return new InstallLog(join(config.dataDir, "logs", "install", `${name}.log`));
}

function contextOf(options: InstalledOptions, log: InstallLog): BuildContext {
  const { config, env = process.env, signal = new AbortController().signal } = options;
  return { config, env, signal, log, step: () => undefined };
}
