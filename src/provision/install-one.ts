import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import {
  hostPackage,
  installedManifestsDir,
  readManifest,
  writeAdapterManifest,
  writeManifest,
} from "../config/index.ts";
import type { AdapterManifest, Manifest, ManifestInput } from "../protocol/index.ts";
import { hashCanonical } from "../util/canonical-json.ts";
import { compact } from "../util/compact.ts";
import { environmentsOf, findComplete, markComplete, newFolder } from "./environment-folder.ts";
import type { InstallResult } from "./events.ts";
import { adapterCommand, introspect, introspectAdapter, type CodeSection } from "./introspect.ts";
import type { BuildContext, EnvironmentSpec, WorkerStart } from "./kind.ts";
import { ENVIRONMENT_KIND } from "./kinds/index.ts";
import { adapterFile, codeOf, driftOf } from "./manifest-sections.ts";

/** A change here rebuilds every environment. */
const LAYOUT_VERSION = 1;

type Outcome = Omit<InstallResult, "durationMs" | "logPath">;

/** What is there of one capability, against what its spec says. */
export interface Examined {
  readonly key: string;
  /** Hash of what the environment is made from, for caches of results. */
  readonly codeHash: string;
  readonly manifestPath: string;
  readonly installed: Manifest | undefined;
  /** Folder of a whole environment of this key; never there for kind `path`. */
  readonly folder: string | undefined;
  /** The manifest names that environment, and nothing is missing. */
  readonly isCurrent: boolean;
}

/** Looks and changes nothing. */
export async function examine(spec: EnvironmentSpec, context: BuildContext): Promise<Examined> {
  const inputs = await ENVIRONMENT_KIND[spec.kind].inputs(spec, context);
  const key = hashCanonical({ layout: LAYOUT_VERSION, ...keyOf(spec), inputs });
  const manifests = installedManifestsDir(context.config);
  const manifestPath = join(manifests, `${spec.name}.json`);
  const installed = await readInstalled(manifestPath);
  const home = environmentsOf(context.config.dataDir, spec.name);
  const inService = installed?.install.env_folder;
  const folder = spec.kind === "path" ? undefined : await findComplete(home, key, inService);
  const isCurrent =
    installed !== undefined &&
    installed.install.env_key === key &&
    (spec.kind === "path" || (folder !== undefined && inService === folder)) &&
    hasAdapters(spec, installed, manifests);
  return { key, codeHash: hashCanonical(inputs), manifestPath, installed, folder, isCurrent };
}

/**
 * Brings one environment to what its spec says. The manifest is written last, by rename: until
 * then, and when anything fails, the environment it names before goes on serving.
 */
export async function installOne(
  spec: EnvironmentSpec,
  context: BuildContext,
  force: boolean,
): Promise<Outcome> {
  context.signal.throwIfAborted();
  const found = await examine(spec, context);
  const { installed, manifestPath } = found;
  if (found.isCurrent && installed !== undefined && !force) {
    return done(spec, "unchanged", { ...found, adapters: adapterNames(installed) });
  }
  const isReady = spec.kind === "path" || (found.folder !== undefined && !force);
  const folder = isReady ? found.folder : await build(spec, found.key, context);
  const plain = await ENVIRONMENT_KIND[spec.kind].start(spec, folder ?? spec.sourceDir ?? "");
  const start = withVariables(spec, plain);
  const code = await introspect(spec, start, context);
  const adapters = await registerAdapters(spec, start, context);
  await writeManifest(manifestPath, manifestOf({ ...found, spec, folder, start, code, adapters }));
  const names = adapters.map(({ name }) => name);
  return done(spec, "installed", { folder, manifestPath, adapters: names });
}

/** The variables an entry sets reach the worker; a list of declarations sets none. */
function withVariables({ entry }: EnvironmentSpec, start: WorkerStart): WorkerStart {
  return Array.isArray(entry.worker_env)
    ? start
    : { ...start, env: { ...start.env, ...entry.worker_env } };
}

/** What of the entry shapes the environment or the manifest. */
function keyOf(spec: EnvironmentSpec): Record<string, unknown> {
  const { name, kind, entry, requirements, sourceDir } = spec;
  return { name, kind, entry, requirements, sourceDir, version: hostPackage().version };
}

async function readInstalled(path: string): Promise<Manifest | undefined> {
  if (!existsSync(path)) return undefined;
  try {
    const unit = await readManifest(path);
    return unit.kind === "capability" ? unit.found.manifest : undefined;
  } catch {
    // A manifest nobody can read is written anew.
    return undefined;
  }
}

function hasAdapters(
  { entry }: EnvironmentSpec,
  { install }: Manifest,
  manifests: string,
): boolean {
  const names = install["adapter_manifests"];
  const written = Array.isArray(names) ? names.map(String) : [];
  return entry.adapters.every(({ impl }) =>
    written.some(
      (name) => name.endsWith(adapterFileEnd(impl)) && existsSync(join(manifests, name)),
    ),
  );
}

function adapterNames({ install }: Manifest): string[] {
  const names = install["adapters"];
  return Array.isArray(names) ? names.map(String) : [];
}

function done(
  spec: EnvironmentSpec,
  outcome: "installed" | "unchanged",
  at: { folder: string | undefined; manifestPath: string; adapters: readonly string[] },
): Outcome {
  const { name, kind } = spec;
  const { folder, manifestPath, adapters } = at;
  return compact({ name, kind, outcome, folder, manifestPath, adapters });
}

async function build(spec: EnvironmentSpec, key: string, context: BuildContext): Promise<string> {
  const folder = await newFolder(environmentsOf(context.config.dataDir, spec.name), key);
  try {
    await ENVIRONMENT_KIND[spec.kind].build(spec, folder, context);
    await markComplete(folder, key);
    return folder;
  } catch (error) {
    await rm(folder, { recursive: true, force: true, maxRetries: 3 });
    throw error;
  }
}

async function registerAdapters(
  spec: EnvironmentSpec,
  start: WorkerStart,
  context: BuildContext,
): Promise<AdapterManifest[]> {
  const adapters: AdapterManifest[] = [];
  for (const { impl } of spec.entry.adapters) {
    context.step(`asking adapter ${impl} what it is`);
    const introspect = adapterCommand(start.pythonPath ?? "", impl, spec.isOriginal);
    const found = await introspectAdapter(spec.name, { ...start, introspect }, context);
    const manifest = {
      ...found,
      conda_env: spec.entry.env_name ?? "",
      generated_at: new Date().toISOString(),
    };
    const file = join(installedManifestsDir(context.config), adapterFile(manifest));
    await writeAdapterManifest(file, manifest);
    adapters.push(manifest);
  }
  return adapters;
}

function adapterFileEnd(impl: string): string {
  return `-${impl.split(":").at(-1) ?? ""}.json`;
}

function manifestOf(from: {
  spec: EnvironmentSpec;
  key: string;
  folder: string | undefined;
  start: WorkerStart;
  code: CodeSection;
  adapters: readonly AdapterManifest[];
  installed: Manifest | undefined;
  codeHash: string;
}): ManifestInput {
  const { spec, start, code, adapters } = from;
  const now = new Date().toISOString();
  return {
    format_version: "2.0",
    install: compact({
      runtime: spec.kind === "path" ? undefined : spec.kind,
      command: start.command === undefined ? undefined : [...start.command],
      env_folder: from.folder,
      env_key: from.key,
      cage: spec.entry.cage,
      python_path: start.pythonPath,
      conda_env: spec.entry.env_name,
      env_vars: { ...start.env },
      installed_at: now,
      installer_version: `cjm-ctl ${hostPackage().version}`,
      package_source: spec.entry.package ?? spec.sourceDir,
      adapters: adapters.map(({ name }) => name),
      adapter_manifests: adapters.map(adapterFile),
    }),
    code: {
      ...codeOf(code, from.codeHash, now),
      ...(Array.isArray(spec.entry.worker_env) && { worker_env: spec.entry.worker_env }),
    },
    drift_tracking: driftOf(code),
    overrides: from.installed?.overrides ?? {},
  };
}
