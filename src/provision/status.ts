import { existsSync } from "node:fs";
import { join } from "node:path";
import {
  installedManifestsDir,
  loadManifests,
  readCapabilitiesFile,
  type EnvironmentKindName,
  type ResolvedConfig,
} from "../config/index.ts";
import { compact } from "../util/compact.ts";
import { examine, type Examined } from "./install-one.ts";
import { InstallLog } from "./install-log.ts";
import type { BuildContext, EnvironmentSpec } from "./kind.ts";
import { specOf } from "./spec.ts";

/** One capability of capabilities.yaml or of the installed manifests. */
export interface EnvironmentStatus {
  readonly name: string;
  /** Absent for an unlisted worker that runs where its source is. */
  readonly kind?: EnvironmentKindName;
  /**
   * `ready`: as capabilities.yaml says. `stale`: works, but is not what capabilities.yaml says now.
   * `broken`: files are missing. `unlisted`: installed, and not in capabilities.yaml.
   * `unknown`: cannot be told, for the reason in `detail`.
   */
  readonly state: "ready" | "stale" | "broken" | "not_installed" | "unlisted" | "unknown";
  readonly detail?: string;
  readonly folder?: string;
  readonly version?: string;
}

/** Compares what is installed with capabilities.yaml, where there is one; changes nothing. */
export async function environmentStatus(
  config: ResolvedConfig,
  env: NodeJS.ProcessEnv = process.env,
): Promise<readonly EnvironmentStatus[]> {
  const listed = existsSync(config.capabilitiesConfig)
    ? (await readCapabilitiesFile(config.capabilitiesConfig)).capabilities
    : [];
  await using log = new InstallLog(join(config.dataDir, "logs", "install", "status.log"));
  const signal = new AbortController().signal;
  const context: BuildContext = { config, env, log, signal, step: () => undefined };
  const known = await Promise.all(listed.map((entry) => statusOf(specOf(entry, config), context)));
  const names = new Set(listed.map(({ name }) => name));
  const { capabilities } = await loadManifests([installedManifestsDir(config)]);
  const unlisted = [...capabilities.values()]
    .filter(({ name }) => !names.has(name))
    .map(({ name, manifest: { install, code } }): EnvironmentStatus =>
      compact({
        name,
        kind: install.runtime,
        state: "unlisted" as const,
        folder: install.env_folder,
        version: code.version,
      }),
    );
  return [...known, ...unlisted];
}

async function statusOf(spec: EnvironmentSpec, context: BuildContext): Promise<EnvironmentStatus> {
  const { name, kind } = spec;
  try {
    const found = await examine(spec, context);
    return compact({
      name,
      kind,
      state: stateOf(found),
      folder: found.installed?.install.env_folder,
      version: found.installed?.code.version,
    });
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return { name, kind, state: "unknown", detail };
  }
}

function stateOf({ installed, isCurrent, key }: Examined): EnvironmentStatus["state"] {
  if (installed === undefined) return "not_installed";
  if (isCurrent) return "ready";
  const { env_key, env_folder } = installed.install;
  if (env_key === key) return "broken";
  return env_folder === undefined || existsSync(env_folder) ? "stale" : "broken";
}
