import { readFile, stat } from "node:fs/promises";
import { basename, extname } from "node:path";
import {
  capabilitiesFileSchema,
  checkYaml,
  cjmConfigSchema,
  problemsError,
  readManifest,
  readYaml,
  type FileProblem,
} from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { EnvVarSpec, Manifest } from "../protocol/index.ts";
import { isRecord } from "../util/record.ts";
import { lintPython } from "./lint-python.ts";
import { listSource } from "./source-files.ts";

export const FILE_FORMATS = ["manifest", "capabilities_yaml", "cjm_yaml", "source"] as const;
export type FileFormat = (typeof FILE_FORMATS)[number];

export interface Validation {
  readonly format: FileFormat;
  readonly errors: readonly FileProblem[];
  /** Things that work and are likely not meant. */
  readonly warnings: readonly FileProblem[];
}

/** Names a worker's declared default may hold as `${NAME}`. */
const PLACEHOLDERS = new Set([
  "CJM_MODELS_DIR",
  "CJM_CAPABILITY_DATA_DIR",
  "CAPABILITY_DATA_DIR",
  "CAPABILITY_NAME",
]);
/** Declared needs of older manifests; admission goes by what is measured. */
const IGNORED_RESOURCES = ["min_gpu_vram_mb", "recommended_gpu_vram_mb", "min_system_ram_mb"];

/**
 * The format of a file by its name and, for YAML, its content; undefined for one that is none of
 * ours (a composition, for which the caller asks elsewhere).
 */
export async function detectFormat(path: string): Promise<FileFormat | undefined> {
  if ((await stat(path)).isDirectory()) return "source";
  const extension = extname(path);
  if (extension === ".json") return "manifest";
  if (extension === ".py") return "source";
  if (extension !== ".yaml" && extension !== ".yml") return undefined;
  if (basename(path, extension) === "cjm") return "cjm_yaml";
  const { value } = await readYaml(path);
  return isRecord(value) && "capabilities" in value ? "capabilities_yaml" : undefined;
}

/** Checks a manifest, a capabilities.yaml, a cjm.yaml, or a capability's source. */
export async function validateFile(path: string, format: FileFormat): Promise<Validation> {
  const warnings: FileProblem[] = [];
  try {
    switch (format) {
      case "manifest":
        warnings.push(...(await checkManifest(path)));
        break;
      case "capabilities_yaml":
        checkYaml(await readYaml(path), capabilitiesFileSchema);
        break;
      case "cjm_yaml":
        checkYaml(await readYaml(path), cjmConfigSchema);
        break;
      case "source":
        return await lintSource(path);
    }
  } catch (error) {
    return { format, errors: problemsIn(error, path), warnings };
  }
  return { format, errors: [], warnings };
}

function problemsIn(error: unknown, path: string): FileProblem[] {
  if (!(error instanceof CjmError)) throw error;
  const listed: unknown = error.details["problems"];
  if (Array.isArray(listed)) return listed.filter(isProblem);
  const message = error.message.replace(`${path}: `, "");
  return [{ source: path, key: "", message }];
}

function isProblem(value: unknown): value is FileProblem {
  return isRecord(value) && typeof value["message"] === "string" && "source" in value;
}

async function checkManifest(path: string): Promise<FileProblem[]> {
  const unit = await readManifest(path);
  if (unit.kind === "adapter") return [];
  const { manifest } = unit.found;
  const errors = (manifest.code.worker_env ?? []).flatMap((variable, index) =>
    variableProblems(variable, path, `code.worker_env[${index}]`),
  );
  if (errors.length > 0) throw problemsError("MANIFEST_INVALID", errors);
  return manifestWarnings(manifest, path);
}

function variableProblems(variable: EnvVarSpec, source: string, key: string): FileProblem[] {
  const value = variable.default ?? undefined;
  if (value === undefined) return [];
  if (variable.secret) {
    const message = `${variable.name} is a secret; a default would be written down in the manifest`;
    return [{ source, key: `${key}.default`, message }];
  }
  return [...value.matchAll(/\$\{(?<name>[^}]*)\}/gu)]
    .map((match) => match.groups?.["name"] ?? "")
    .filter((name) => !PLACEHOLDERS.has(name))
    .map((name) => ({
      source,
      key: `${key}.default`,
      message: `\${${name}} is not one of ${[...PLACEHOLDERS].join(", ")}`,
    }));
}

function manifestWarnings({ code }: Manifest, source: string): FileProblem[] {
  const properties = code.config_schema?.["properties"];
  const single = Object.entries(isRecord(properties) ? properties : {}).flatMap(([name, schema]) =>
    isRecord(schema) && Array.isArray(schema["enum"]) && schema["enum"].length === 1 ? [name] : [],
  );
  const ignored = IGNORED_RESOURCES.filter((name) => code.resources?.[name] !== undefined);
  return [
    ...single.map((name) => ({
      source,
      key: `code.config_schema.properties.${name}`,
      message: "an enum of one value offers no choice",
    })),
    ...ignored.map((name) => ({
      source,
      key: `code.resources.${name}`,
      message: "is ignored: jobs are admitted by what is measured",
    })),
  ];
}

async function lintSource(path: string): Promise<Validation> {
  const isFolder = (await stat(path)).isDirectory();
  const files = isFolder ? await listSource(path) : [{ name: basename(path), path }];
  const errors: FileProblem[] = [];
  const warnings: FileProblem[] = [];
  for (const { path: file } of files.filter(({ name }) => isLinted(name))) {
    for (const { isError, ...problem } of lintPython(await readFile(file, "utf8"))) {
      (isError ? errors : warnings).push({ source: file, key: "", ...problem });
    }
  }
  return { format: "source", errors, warnings };
}

/** Scripts that run beside the host own their logging. */
function isLinted(name: string): boolean {
  return name.endsWith(".py") && !/(?:^|\/)(?:tests_manual|_proc)\//u.test(name);
}
