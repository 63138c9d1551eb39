import { existsSync, readFileSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, isAbsolute, join, resolve } from "node:path";
import type { z } from "zod";
import { CjmError, unwritable } from "../errors/index.ts";
import {
  adapterManifestSchema,
  codeSectionSchema,
  MANIFEST_FORMAT_VERSION,
  manifestSchema,
  type AdapterManifest,
  type Manifest,
  type ManifestInput,
} from "../protocol/index.ts";
import { compact } from "../util/compact.ts";
import { isRecord } from "../util/record.ts";
import { replaceFile } from "../util/replace-file.ts";
import { problemsError, problemsOf, type FileProblem } from "./file-problem.ts";
import type { ResolvedConfig } from "./load.ts";
import { hostPackage } from "./package-root.ts";
import { currentPlatform } from "./platform.ts";
import { parseYaml, readText } from "./yaml-file.ts";

/** A capability as a manifest on disk describes it. */
export interface DiscoveredManifest {
  readonly name: string;
  /** With `overrides` merged over `code`. */
  readonly manifest: Manifest;
  readonly path: string;
  /** False where the capability names platforms and this machine's is none of them. */
  readonly supported: boolean;
}

export interface DiscoveredAdapter {
  readonly name: string;
  readonly manifest: AdapterManifest;
  readonly path: string;
}

export interface LoadedManifests {
  readonly capabilities: ReadonlyMap<string, DiscoveredManifest>;
  readonly adapters: ReadonlyMap<string, DiscoveredAdapter>;
  /** Files that could not be used; what else is there still works. */
  readonly problems: readonly FileProblem[];
}

/** Where manifests are looked for, the strongest first: installed, the caller's, shipped. */
export function manifestSearchPaths(
  config: Pick<ResolvedConfig, "dataDir">,
  more: readonly string[] = [],
): string[] {
  return [installedManifestsDir(config), ...more, join(hostPackage().root, "manifests")];
}

/** Folder of the manifests that provisioning writes. */
export function installedManifestsDir(config: Pick<ResolvedConfig, "dataDir">): string {
  return join(config.dataDir, "manifests");
}

/** Reads every manifest of the folders; a name found in an earlier folder hides a later one. */
export async function loadManifests(searchPaths: readonly string[]): Promise<LoadedManifests> {
  const capabilities = new Map<string, DiscoveredManifest>();
  const adapters = new Map<string, DiscoveredAdapter>();
  const problems: FileProblem[] = [];
  for (const folder of searchPaths) {
    const here = new Map<string, string>();
    for (const path of await manifestFiles(folder)) {
      const unit = await readUnit(path, problems);
      if (unit === undefined) continue;
      const twin = here.get(`${unit.kind} ${unit.found.name}`);
      if (twin !== undefined) {
        const message = `"${unit.found.name}" is described by ${twin} too; this file is ignored`;
        problems.push({ source: path, key: "", message });
        continue;
      }
      here.set(`${unit.kind} ${unit.found.name}`, path);
      if (unit.kind === "adapter") insertNew(adapters, unit.found);
      else insertNew(capabilities, unit.found);
    }
  }
  return { capabilities, adapters, problems };
}

function insertNew<T extends { readonly name: string }>(map: Map<string, T>, found: T): void {
  if (!map.has(found.name)) map.set(found.name, found);
}

async function manifestFiles(folder: string): Promise<string[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => name.endsWith(".json") && !name.startsWith("."))
      .sort()
      .map((name) => join(folder, name));
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "ENOENT" || code === "ENOTDIR") return [];
    throw error;
  }
}

type Unit =
  | { readonly kind: "capability"; readonly found: DiscoveredManifest }
  | { readonly kind: "adapter"; readonly found: DiscoveredAdapter };

async function readUnit(path: string, problems: FileProblem[]): Promise<Unit | undefined> {
  try {
    return await readManifest(path);
  } catch (error) {
    const listed = error instanceof CjmError ? error.details["problems"] : undefined;
    if (isProblems(listed)) problems.push(...listed);
    else problems.push({ source: path, key: "", message: messageOf(error, path) });
    return undefined;
  }
}

function isProblems(value: unknown): value is FileProblem[] {
  return Array.isArray(value) && value.every((item) => isRecord(item) && "source" in item);
}

function messageOf(error: unknown, path: string): string {
  const message = error instanceof Error ? error.message : String(error);
  return message.startsWith(`${path}: `) ? message.slice(path.length + 2) : message;
}

/**
 * Reads one manifest of a capability or of an adapter.
 *
 * @throws {CjmError} `FILE_INVALID` or `MANIFEST_INVALID` naming the file and every bad field.
 */
export async function readManifest(path: string): Promise<Unit> {
  const text = await readText(path);
  const data = parseJson(text, path);
  if (isRecord(data) && data["unit"] === "adapter") {
    const manifest = parseWith(adapterManifestSchema, data, { path, text });
    return { kind: "adapter", found: { name: manifest.name, manifest, path } };
  }
  const version = isRecord(data) ? data["format_version"] : undefined;
  if (version !== MANIFEST_FORMAT_VERSION) {
    const found = version === undefined ? "none" : JSON.stringify(version);
    throw new CjmError(
      "MANIFEST_INVALID",
      `${path}: format_version is ${found}; only "${MANIFEST_FORMAT_VERSION}" is read`,
      { fieldsInvalid: ["format_version"] },
    );
  }
  const stored = parseWith(manifestSchema, data, { path, text });
  const manifest =
    Object.keys(stored.overrides).length === 0
      ? stored
      : { ...stored, code: overriddenCode(stored, path) };
  const platforms = manifest.code.resources?.platforms ?? [];
  const supported = platforms.length === 0 || platforms.includes(currentPlatform());
  return { kind: "capability", found: { name: manifest.code.name, manifest, path, supported } };
}

function overriddenCode({ code, overrides }: Manifest, path: string): Manifest["code"] {
  return parseWith(codeSectionSchema, mergeDeep(code, overrides), { path, text: "" });
}

function parseJson(text: string, path: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new CjmError("MANIFEST_INVALID", `${path}: ${message}`, { cause: error });
  }
}

function parseWith<Schema extends z.ZodType>(
  schema: Schema,
  data: unknown,
  { path, text }: { path: string; text: string },
): z.output<Schema> {
  const parsed = schema.safeParse(data);
  if (parsed.success) return parsed.data;
  // JSON is YAML: the reader that knows line numbers runs only for a file that is wrong.
  const locate = text === "" ? undefined : parseYaml(text, path).locate;
  throw problemsError(
    "MANIFEST_INVALID",
    problemsOf(parsed.error, compact({ source: path, schema, locate })),
  );
}

/** Objects member by member; anything else is replaced. */
function mergeDeep(base: unknown, overlay: unknown): unknown {
  if (!isRecord(base) || !isRecord(overlay)) return overlay;
  const members = Object.entries(overlay).map(([key, value]): [string, unknown] => [
    key,
    Object.hasOwn(base, key) ? mergeDeep(base[key], value) : value,
  ]);
  // Not by assignment: a member that is named `__proto__` would be none.
  return Object.fromEntries([...Object.entries(base), ...members]);
}

/**
 * Writes a manifest by rename, so that nobody ever reads half of one.
 *
 * @throws {CjmError} `MANIFEST_INVALID` for a manifest that could not be read again.
 */
export async function writeManifest(path: string, manifest: ManifestInput): Promise<void> {
  const { install, code, drift_tracking, overrides } = parseWith(manifestSchema, manifest, {
    path,
    text: "",
  });
  const ordered = {
    format_version: MANIFEST_FORMAT_VERSION,
    install,
    code,
    drift_tracking,
    overrides,
  };
  await writeManifestFile(path, ordered);
}

/** Writes the manifest of a task adapter by rename. */
export async function writeAdapterManifest(path: string, manifest: AdapterManifest): Promise<void> {
  const checked = parseWith(adapterManifestSchema, manifest, { path, text: "" });
  await writeManifestFile(path, checked);
}

async function writeManifestFile(path: string, manifest: unknown): Promise<void> {
  await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => {
    throw unwritable(path, error);
  });
  await replaceFile(path, `${JSON.stringify(manifest, null, 2)}\n`, 0o644);
}

/**
 * The argument vector that starts a capability's worker, or undefined where it is not installed.
 * A manifest of the original has none of ours: its worker is started by the caller.
 */
export function workerCommand({ manifest }: DiscoveredManifest): readonly string[] | undefined {
  const { install, code } = manifest;
  if (install.command !== undefined) return install.command;
  if (code.entry === undefined || !/\.[cm]?[jt]s$/u.test(code.entry)) return undefined;
  const entry = isAbsolute(code.entry) ? code.entry : resolve(hostPackage().root, code.entry);
  return hasItsPackages(code.name, entry) ? [process.execPath, entry] : undefined;
}

/** A shipped worker runs without an environment only where the packages it names are there anyway. */
function hasItsPackages(name: string, entry: string): boolean {
  const path = join(hostPackage().root, "workers", name, "package.json");
  if (!existsSync(path)) return true;
  const content: unknown = JSON.parse(readFileSync(path, "utf8"));
  const named = isRecord(content) ? content["dependencies"] : undefined;
  const { resolve: locate } = createRequire(entry);
  return Object.keys(isRecord(named) ? named : {}).every((dependency) => {
    try {
      return locate(dependency) !== "";
    } catch (error) {
      // One that only `import` may load is there too.
      return !(error instanceof Error && "code" in error && error.code === "MODULE_NOT_FOUND");
    }
  });
}
