import { existsSync } from "node:fs";
import { basename, dirname, join, resolve } from "node:path";
import {
  hostPackage,
  type CapabilityEntry,
  type EnvironmentKindName,
  type ResolvedConfig,
} from "../config/index.ts";
import type { EnvironmentSpec } from "./kind.ts";

/** An entry of capabilities.yaml with its kind decided and its paths made absolute. */
export function specOf(
  entry: CapabilityEntry,
  config: ResolvedConfig,
  substrateSource?: string,
): EnvironmentSpec {
  const base = dirname(config.capabilitiesConfig);
  const sourceDir = entry.path === undefined ? undefined : resolve(base, entry.path);
  const kind = entry.env ?? inferKind(entry, sourceDir, config);
  const isPython = kind === "venv" || kind === "uv" || kind === "conda";
  return {
    name: entry.name,
    kind,
    entry: { ...entry, package: localPackage(entry.package, base) },
    sourceDir,
    compiledDir: compiledDirOf(sourceDir),
    requirementsFile: requirementsFileOf(entry, base, sourceDir),
    environmentFile: environmentFileOf(entry, base),
    requirements: [
      ...(Array.isArray(entry.requirements) ? entry.requirements : []),
      ...entry.interface_libs,
      ...entry.adapters.flatMap(({ lib }) => (lib === undefined ? [] : [lib])),
    ],
    isOriginal: isPython && entry.package !== undefined && entry.entry === undefined,
    substrateSource,
  };
}

function inferKind(
  entry: CapabilityEntry,
  sourceDir: string | undefined,
  config: ResolvedConfig,
): EnvironmentKindName {
  if (entry.env_file !== undefined) return "conda";
  if (!isPythonEntry(entry, sourceDir)) return "npm";
  const isConda = Object.keys(config.sources).some((key) => key.startsWith("runtime."));
  return isConda ? "conda" : "venv";
}

function isPythonEntry(entry: CapabilityEntry, sourceDir: string | undefined): boolean {
  if (entry.entry !== undefined) return isPythonStart(entry.entry);
  if (sourceDir !== undefined) return !existsSync(join(sourceDir, "package.json"));
  return (
    entry.env_name !== undefined ||
    entry.python_version !== undefined ||
    entry.requirements !== undefined ||
    entry.interface_libs.length > 0
  );
}

/** `module:ClassName` or a `.py` file. */
export function isPythonStart(entry: string): boolean {
  return /^[\w.]+:\w+$/u.test(entry) || entry.endsWith(".py");
}

/** A package that is a path is relative to the file that names it. */
function localPackage(spec: string | undefined, base: string): string | undefined {
  if (spec === undefined) return undefined;
  const editable = /^-e\s+(?<path>.+)$/u.exec(spec)?.groups?.["path"];
  const path = editable ?? spec;
  const isPath = path.startsWith(".") || path.startsWith("/");
  if (!isPath) return spec;
  return editable === undefined ? resolve(base, path) : `-e ${resolve(base, path)}`;
}

/** The workers this package ships are compiled by its build; a user's worker runs as it is. */
function compiledDirOf(sourceDir: string | undefined): string | undefined {
  const { root } = hostPackage();
  if (sourceDir === undefined || dirname(sourceDir) !== join(root, "workers")) return undefined;
  return existsSync(join(sourceDir, "main.ts"))
    ? join(root, "dist", "workers", basename(sourceDir))
    : undefined;
}

function requirementsFileOf(
  entry: CapabilityEntry,
  base: string,
  sourceDir: string | undefined,
): string | undefined {
  if (typeof entry.requirements === "string") return resolve(base, entry.requirements);
  if (entry.requirements !== undefined || sourceDir === undefined) return undefined;
  return ["requirements.lock", "requirements.txt"]
    .map((name) => join(sourceDir, name))
    .find((path) => existsSync(path));
}

function environmentFileOf(entry: CapabilityEntry, base: string): string | undefined {
  if (entry.env_file === undefined || /^https?:\/\//u.test(entry.env_file)) return entry.env_file;
  return resolve(base, entry.env_file);
}
