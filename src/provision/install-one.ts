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
import {
  environmentVariables,
  introspect,
  introspectAdapter,
  type CodeSection,
} from "./introspect.ts";
import type { BuildContext, EnvironmentSpec, WorkerStart } from "./kind.ts";
import { ENVIRONMENT_KIND } from "./kinds/index.ts";

/** A change here rebuilds every environment. */
const LAYOUT_VERSION = 1;

type Outcome = Omit<InstallResult, "durationMs" | "logPath">;

/**
 * Brings one environment to what its spec says. The manifest is written last, by rename: until
 * then, and when anything fails, the environment it names before goes on serving.
 */
export async function installOne(
  spec: EnvironmentSpec,
  context: BuildContext,
  force: boolean,
): Promise<Outcome> {
  const kind = ENVIRONMENT_KIND[spec.kind];
  const inputs = await kind.inputs(spec, context);
  const key = hashCanonical({ layout: LAYOUT_VERSION, ...keyOf(spec), inputs });
  const path = join(installedManifestsDir(context.config), `${spec.name}.json`);
  const installed = await readInstalled(path);
  const complete = spec.kind === "path" ? undefined : await completeFolder(spec, key, context);

  if (!force && installed !== undefined && isCurrent(installed, { spec, key, complete, context })) {
    return done(spec, "unchanged", { folder: complete, path, adapters: adapterNames(installed) });
  }
  const folder =
    spec.kind === "path" || (complete !== undefined && !force)
      ? complete
      : await build(spec, key, context);
  const start = await kind.start(spec, folder ?? spec.sourceDir ?? "");
  const code = await introspect(spec, start, context);
  const adapters = await registerAdapters(spec, start, context);
  await writeManifest(
    path,
    manifestOf({
      spec,
      key,
      folder,
      start,
      code,
      adapters,
      installed,
      codeHash: hashCanonical(inputs),
    }),
  );
  return done(spec, "installed", { folder, path, adapters: adapters.map(({ name }) => name) });
}

/** What of the entry shapes the environment or the manifest. */
function keyOf(spec: EnvironmentSpec): Record<string, unknown> {
  const { name, kind, entry, requirements, sourceDir } = spec;
  return { name, kind, entry, requirements, sourceDir, version: hostPackage().version };
}

async function completeFolder(
  spec: EnvironmentSpec,
  key: string,
  { config }: BuildContext,
): Promise<string | undefined> {
  return findComplete(environmentsOf(config.dataDir, spec.name), key);
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

function isCurrent(
  { install }: Manifest,
  at: { spec: EnvironmentSpec; key: string; complete: string | undefined; context: BuildContext },
): boolean {
  if (install.env_key !== at.key) return false;
  if (at.spec.kind !== "path" && install.env_folder !== at.complete) return false;
  const folder = installedManifestsDir(at.context.config);
  const files = at.spec.entry.adapters.map(({ impl }) => adapterFileEnd(impl));
  const names = install["adapter_manifests"];
  const written = Array.isArray(names) ? names.map(String) : [];
  return files.every((end) =>
    written.some((name) => name.endsWith(end) && existsSync(join(folder, name))),
  );
}

function adapterNames({ install }: Manifest): string[] {
  const names = install["adapters"];
  return Array.isArray(names) ? names.map(String) : [];
}

function done(
  spec: EnvironmentSpec,
  outcome: "installed" | "unchanged",
  at: { folder: string | undefined; path: string; adapters: readonly string[] },
): Outcome {
  const { name, kind } = spec;
  return compact({
    name,
    kind,
    outcome,
    folder: at.folder,
    manifestPath: at.path,
    adapters: at.adapters,
  });
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
    const introspect = adapterCommand(spec, start, impl);
    const found = await introspectAdapter(spec, { ...start, introspect }, context);
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

function adapterCommand(
  spec: EnvironmentSpec,
  { pythonPath = "" }: WorkerStart,
  impl: string,
): readonly string[] {
  if (!spec.isOriginal) return [pythonPath, "-m", "cjm_worker.introspect", impl];
  return [pythonPath, join(hostPackage().root, "python", "introspect", "adapter.py"), impl];
}

function adapterFile({ task_name, class: className }: AdapterManifest): string {
  return `adapter-${task_name.replaceAll(/[^\w.-]/gu, "_")}-${className}.json`;
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
      env_vars: { ...start.env, ...environmentVariables(spec) },
      installed_at: now,
      installer_version: `cjm-ctl ${hostPackage().version}`,
      package_source: spec.entry.package ?? spec.sourceDir,
      adapters: adapters.map(({ name }) => name),
      adapter_manifests: adapters.map(adapterFile),
    }),
    code: {
      ...code,
      ...(Array.isArray(spec.entry.worker_env) && { worker_env: spec.entry.worker_env }),
      code_hash: from.codeHash,
      regenerated_at: now,
    },
    drift_tracking: {
      config_schema_hash: hashCanonical(code.config_schema ?? {}),
      structural_surface_hash:
        code.structural_surface === undefined || code.structural_surface === null
          ? null
          : hashCanonical(code.structural_surface),
    },
    overrides: from.installed?.overrides ?? {},
  };
}
