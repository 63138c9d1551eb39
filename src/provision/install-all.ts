import { readdir, realpath } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { basename, join } from "node:path";
import PQueue from "p-queue";
import {
  installedManifestsDir,
  loadManifests,
  readCapabilitiesFile,
  type CapabilityEntry,
  type ResolvedConfig,
} from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import { closest } from "../util/suggest.ts";
import { environmentsOf, isMarked, removeOthers } from "./environment-folder.ts";
import type { InstallEvent, InstallResult } from "./events.ts";
import { foldersInUse } from "./in-use.ts";
import { InstallLog } from "./install-log.ts";
import { installOne } from "./install-one.ts";
import type { EnvironmentSpec } from "./kind.ts";
import { lockInstallation } from "./lock.ts";
import { specOf } from "./spec.ts";

const MAX_PARALLEL = 4;

/** Variables that would make an installer work on another environment than the one it is given. */
const FOREIGN_VARIABLES = new Set([
  "PYTHONHOME",
  "PYTHONPATH",
  "VIRTUAL_ENV",
  "CONDA_PREFIX",
  "UV_PYTHON",
]);

export interface InstallAllOptions {
  readonly config: ResolvedConfig;
  /** Installs only these; the others are left as they are. */
  readonly only?: readonly string[] | undefined;
  /** Builds each environment anew; the old one serves until the new one is ready. */
  readonly force?: boolean | undefined;
  /** pip spec or path installed into Python environments instead of the SDK this package carries. */
  readonly substrateSource?: string | undefined;
  readonly onEvent?: ((event: InstallEvent) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
  /** What installers inherit. @default process.env */
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** The environment folders that running workers use. @default found in the process table */
  readonly inUse?: (() => Promise<(folder: string) => boolean>) | undefined;
}

/**
 * Installs the capabilities of `capabilities.yaml` and writes their manifests.
 *
 * Idempotent: what is as it should be is left alone. Environments are built side by side; one that
 * fails is a result with `outcome: "failed"`, and what served before still does.
 *
 * @throws {CjmError} `FILE_INVALID` for a bad capabilities.yaml, `CAPABILITY_UNKNOWN` for a name in
 * `only` that it does not hold, `DATA_DIR_LOCKED` while another installation runs.
 * @throws `signal.reason` on abort, when every installer has ended.
 */
export async function installAll(options: InstallAllOptions): Promise<readonly InstallResult[]> {
  const { config, signal = new AbortController().signal } = options;
  const { capabilities } = await readCapabilitiesFile(config.capabilitiesConfig);
  const chosen = choose(capabilities, options.only, config.capabilitiesConfig);
  using _lock = lockInstallation(config.dataDir);
  await removeUnfinished(config);
  const specs = chosen.map((entry) => specOf(entry, config, options.substrateSource));
  const queue = new PQueue({ concurrency: Math.min(MAX_PARALLEL, availableParallelism()) });
  const results = await Promise.all(
    specs.map((spec) => queue.add(() => installReported(spec, options, signal))),
  );
  signal.throwIfAborted();
  await removeReplaced(options);
  return results;
}

function choose(
  entries: readonly CapabilityEntry[],
  only: readonly string[] | undefined,
  file: string,
): readonly CapabilityEntry[] {
  if (only === undefined || only.length === 0) return entries;
  const names = entries.map(({ name }) => name);
  const unknown = only.filter((name) => !names.includes(name));
  if (unknown.length === 0) return entries.filter(({ name }) => only.includes(name));
  const described = unknown.map((name) => {
    const meant = closest(name, names);
    return meant === undefined ? `"${name}"` : `"${name}" (did you mean "${meant}"?)`;
  });
  throw new CjmError("CAPABILITY_UNKNOWN", `${file} has no ${described.join(", ")}`, {
    fieldsInvalid: unknown,
  });
}

async function installReported(
  spec: EnvironmentSpec,
  options: InstallAllOptions,
  signal: AbortSignal,
): Promise<InstallResult> {
  const { config, onEvent = () => undefined, env = process.env, force = false } = options;
  const { name, kind } = spec;
  const startedAt = performance.now();
  const logPath = join(config.dataDir, "logs", "install", `${name}.log`);
  await using log = new InstallLog(logPath, (line) => onEvent({ type: "output", name, line }));
  onEvent({ type: "started", name, kind });
  const context = {
    config,
    log,
    signal,
    env: installerEnvironment(env),
    step: (text: string) => onEvent({ type: "step", name, text }),
  };
  const result = await installOne(spec, context, force)
    .catch((error: unknown) => failed(spec, error))
    .then((outcome) => ({
      ...outcome,
      ...(outcome.outcome !== "unchanged" && { logPath }),
      durationMs: performance.now() - startedAt,
    }));
  if (result.error !== undefined) log.line(`failed: ${result.error.message}`);
  onEvent({ type: "finished", name, result });
  return result;
}

function failed(
  { name, kind }: EnvironmentSpec,
  thrown: unknown,
): Pick<InstallResult, "name" | "kind" | "outcome" | "adapters" | "error"> {
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  return { name, kind, outcome: "failed", adapters: [], error };
}

function installerEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !FOREIGN_VARIABLES.has(name)));
}

/** What a killed installation left behind; nothing can use it. */
async function removeUnfinished(config: ResolvedConfig): Promise<void> {
  for (const home of await homes(config)) await removeOthers(home, isMarked);
}

async function removeReplaced({
  config,
  onEvent,
  inUse = foldersInUse,
}: InstallAllOptions): Promise<void> {
  const { capabilities, problems } = await loadManifests([installedManifestsDir(config)]);
  // A manifest that cannot be read may name any folder.
  if (problems.length > 0) return;
  const named = new Set(
    await Promise.all(
      [...capabilities.values()].map(({ manifest }) => actual(manifest.install.env_folder)),
    ),
  );
  let isUsed: ((folder: string) => boolean) | undefined;
  for (const home of await homes(config)) {
    const removed = await removeOthers(home, async (path) => {
      const folder = (await actual(path)) ?? path;
      if (named.has(folder)) return true;
      isUsed ??= await inUse();
      return isUsed(folder);
    });
    for (const folder of removed) onEvent?.({ type: "removed", name: basename(home), folder });
  }
}

/** The path without links: a data directory may be reached by several. */
async function actual(path: string | undefined): Promise<string | undefined> {
  return path === undefined ? undefined : await realpath(path).catch(() => path);
}

async function homes(config: ResolvedConfig): Promise<string[]> {
  try {
    const names = await readdir(join(config.dataDir, "envs"));
    return names.map((name) => environmentsOf(config.dataDir, name));
  } catch {
    return [];
  }
}
