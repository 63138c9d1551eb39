import { access } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { CjmError } from "../errors/index.ts";
import { compact } from "../util/compact.ts";
import { isRecord } from "../util/record.ts";
import { problemsError, problemsOf, type FileProblem, type Locate } from "./file-problem.ts";
import { configKeys, PATH_KEYS, valueOfText } from "./keys.ts";
import { cjmConfigSchema, type CjmConfig } from "./schema.ts";
import { readYaml } from "./yaml-file.ts";

const CONFIG_FILE = "cjm.yaml";

/** Configuration with every default filled in and every path absolute. */
export interface ResolvedConfig {
  /** The cjm.yaml that was read, if there was one. */
  readonly configPath: string | undefined;
  /** Folder of cjm.yaml, or the working directory. */
  readonly projectDir: string;
  readonly dataDir: string;
  readonly capabilitiesConfig: string;
  readonly modelsDir: string | undefined;
  readonly runtime: {
    readonly mode: CjmConfig["runtime"]["mode"];
    readonly condaType: CjmConfig["runtime"]["conda_type"];
    readonly prefix: string | undefined;
    readonly binaries: Readonly<Partial<Record<string, string>>>;
  };
  readonly substrate: {
    readonly driftDetection: boolean;
    readonly empiricalTracking: boolean;
    readonly prefetchStallThresholdSeconds: number;
    readonly startTimeoutSeconds: number;
    readonly terminateGraceSeconds: number;
    readonly diagnosticsRetentionDays: number;
    readonly diagnosticsRetentionMaxMb: number | undefined;
    readonly passEnv: readonly string[];
    readonly cage: "auto" | "group";
  };
  readonly queue: {
    readonly maxConcurrentLanes: number;
    readonly cancelTimeoutSeconds: number;
    readonly maxRetries: number;
    /** Absent: the larger of 512 MB and 5 % of the GPU. */
    readonly vramMarginMb: number | undefined;
    readonly minFreeDiskMb: number;
    readonly admission: "wait" | "refuse" | "permissive";
    readonly history: number;
  };
  /** For each key that is not at its default: the file, `--flag` or `$VARIABLE` that set it. */
  readonly sources: Readonly<Record<string, string>>;
}

export interface LoadConfigOptions {
  /** Where the search for cjm.yaml begins; flags' and variables' paths are relative to it. */
  readonly cwd: string;
  /** Reads this file instead of searching; it must exist. Relative to `cwd`. */
  readonly configPath?: string | undefined;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Values from the command line by their dotted key: `{ "runtime.conda_type": "micromamba" }`. */
  readonly flags?: Readonly<Record<string, unknown>> | undefined;
}

/** The values one source sets. */
interface Layer {
  readonly values: Record<string, unknown>;
  readonly base: string;
  /** Names the source of a key. */
  source(key: string): string;
  readonly locate?: Locate;
}

/**
 * Resolves the configuration: command line, then `CJM_*`, then cjm.yaml (found upwards from `cwd`),
 * then defaults.
 *
 * @throws {CjmError} `FILE_INVALID` or `CONFIG_INVALID` with every problem of every source at once.
 */
export async function loadConfig(options: LoadConfigOptions): Promise<ResolvedConfig> {
  const configPath = await findConfig(options);
  const problems: FileProblem[] = [];
  const file = configPath === undefined ? undefined : await fileLayer(configPath);
  const layers = [file, environmentLayer(options), flagLayer(options)].filter(
    (layer) => layer !== undefined,
  );
  for (const layer of layers) problems.push(...problemsOfLayer(layer));
  if (problems.length > 0) {
    const inFile = problems.some(({ source }) => source === configPath);
    throw problemsError(inFile ? "FILE_INVALID" : "CONFIG_INVALID", problems);
  }
  const projectDir = configPath === undefined ? resolve(options.cwd) : dirname(configPath);
  const merged = mergeLayers(layers);
  const config = cjmConfigSchema.parse(merged.values);
  return resolvedConfig(config, { configPath, projectDir, sources: merged.sources });
}

async function findConfig({ cwd, configPath }: LoadConfigOptions): Promise<string | undefined> {
  if (configPath !== undefined) {
    const path = resolve(cwd, configPath);
    if (await exists(path)) return path;
    throw new CjmError("FILE_INVALID", `${path}: no such file`);
  }
  for (let folder = resolve(cwd); ; folder = dirname(folder)) {
    const candidate = join(folder, CONFIG_FILE);
    if (await exists(candidate)) return candidate;
    if (dirname(folder) === folder) return undefined;
  }
}

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

async function fileLayer(path: string): Promise<Layer> {
  const { value, locate } = await readYaml(path);
  const values = withoutNulls(value ?? {});
  if (!isRecord(values)) {
    throw new CjmError("FILE_INVALID", `${path}:1:1: expected keys and values`);
  }
  return { values, base: dirname(path), source: () => path, locate };
}

/** A key without a value (`models_dir:`) is a key that is not set. */
function withoutNulls(value: unknown): unknown {
  if (!isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== null)
      .map(([key, member]) => [key, withoutNulls(member)]),
  );
}

function environmentLayer({ cwd, env }: LoadConfigOptions): Layer {
  const values: Record<string, unknown> = {};
  const variableOf = new Map<string, string>();
  for (const option of configKeys()) {
    const variable = option.variables.find((name) => (env[name] ?? "") !== "");
    if (variable === undefined) continue;
    setAt(values, option.key, valueOfText(env[variable] ?? "", option.schema));
    variableOf.set(option.key, variable);
  }
  return { values, base: resolve(cwd), source: (key) => `$${nearest(variableOf, key)}` };
}

function flagLayer({ cwd, flags = {} }: LoadConfigOptions): Layer {
  const values: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(flags)) {
    if (value !== undefined) setAt(values, key, value);
  }
  return {
    values,
    base: resolve(cwd),
    source: (key) =>
      `--${key
        .replace(/^runtime\.prefix$/u, "conda-prefix")
        .replace(/^runtime\./u, "")
        .replaceAll(/[._]/gu, "-")}`,
  };
}

/** The variable of a key, or of the key that holds it (`runtime.binaries.linux-x64`). */
function nearest(variableOf: ReadonlyMap<string, string>, key: string): string {
  for (const [known, variable] of variableOf) {
    if (key === known || key.startsWith(`${known}.`) || key.startsWith(`${known}[`)) {
      return variable;
    }
  }
  return key;
}

function problemsOfLayer(layer: Layer): FileProblem[] {
  const parsed = cjmConfigSchema.safeParse(layer.values);
  if (parsed.success) return [];
  return problemsOf(
    parsed.error,
    compact({ source: "", schema: cjmConfigSchema, locate: layer.locate }),
  ).map((problem) => ({ ...problem, source: layer.source(problem.key) }));
}

function mergeLayers(layers: readonly Layer[]): {
  values: Record<string, unknown>;
  sources: Record<string, string>;
} {
  const values: Record<string, unknown> = {};
  const sources: Record<string, string> = {};
  for (const layer of layers) {
    for (const { key } of configKeys()) {
      const value = getAt(layer.values, key);
      if (value === undefined) continue;
      setAt(values, key, absoluteAt(key, value, layer.base));
      sources[key] = layer.source(key);
    }
  }
  return { values, sources };
}

function absoluteAt(key: string, value: unknown, base: string): unknown {
  if (PATH_KEYS.includes(key) && typeof value === "string") return absolute(value, base);
  if (key !== "runtime.binaries" || !isRecord(value)) return value;
  return Object.fromEntries(
    Object.entries(value).map(([platform, path]) => [
      platform,
      typeof path === "string" ? absolute(path, base) : path,
    ]),
  );
}

function absolute(path: string, base: string): string {
  const expanded = path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
  return resolve(base, expanded);
}

function getAt(values: Readonly<Record<string, unknown>>, key: string): unknown {
  let current: unknown = values;
  for (const part of key.split(".")) {
    if (!isRecord(current)) return undefined;
    current = current[part];
  }
  return current;
}

function setAt(values: Record<string, unknown>, key: string, value: unknown): void {
  const parts = key.split(".");
  const last = parts.pop() ?? key;
  let current = values;
  for (const part of parts) {
    const next = current[part];
    const section: Record<string, unknown> = isRecord(next) ? next : {};
    current[part] = section;
    current = section;
  }
  current[last] = value;
}

function resolvedConfig(
  config: CjmConfig,
  place: Pick<ResolvedConfig, "configPath" | "projectDir" | "sources">,
): ResolvedConfig {
  const { runtime, substrate, queue } = config;
  return {
    ...place,
    dataDir: resolve(place.projectDir, config.data_dir),
    capabilitiesConfig: resolve(place.projectDir, config.capabilities_config),
    modelsDir: config.models_dir,
    runtime: {
      mode: runtime.mode,
      condaType: runtime.conda_type,
      prefix: runtime.prefix,
      binaries: runtime.binaries,
    },
    substrate: {
      driftDetection: substrate.drift_detection,
      empiricalTracking: substrate.empirical_tracking,
      prefetchStallThresholdSeconds: substrate.prefetch_stall_threshold_seconds,
      startTimeoutSeconds: substrate.start_timeout_seconds,
      terminateGraceSeconds: substrate.terminate_grace_seconds,
      diagnosticsRetentionDays: substrate.diagnostics_retention_days,
      diagnosticsRetentionMaxMb: substrate.diagnostics_retention_max_mb,
      passEnv: substrate.pass_env,
      cage: substrate.cage,
    },
    queue: {
      maxConcurrentLanes: queue.max_concurrent_lanes,
      cancelTimeoutSeconds: queue.cancel_timeout_seconds,
      maxRetries: queue.max_retries,
      vramMarginMb: queue.vram_margin_mb,
      minFreeDiskMb: queue.min_free_disk_mb,
      admission: queue.admission,
      history: queue.history,
    },
  };
}
