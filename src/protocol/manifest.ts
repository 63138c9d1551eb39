import { z } from "zod";
import { NAME_PATTERN } from "../util/ids.ts";
import { sha256Schema } from "./references.ts";
import { structuralSurfaceSchema } from "./structural-surface.ts";

export const MANIFEST_FORMAT_VERSION = "2.0";
export const PLATFORMS = [
  "linux-x64",
  "linux-arm64",
  "darwin-x64",
  "darwin-arm64",
  "win-x64",
] as const;
export const RUNTIMES = ["npm", "venv", "uv", "conda"] as const;
/** How a worker's descendants are held: by a PID namespace, a cgroup, or its process group. */
export const CAGES = ["pidns", "cgroup", "group"] as const;
export type Cage = (typeof CAGES)[number];

const jsonObject = z.record(z.string(), z.unknown());

/** No system takes a zero byte in an argument or an environment. */
const withoutZero = z.string().refine((text) => !text.includes("\0"), "holds a zero byte");

/** One variable of a worker's environment, fixed when the worker is spawned. */
export const envVarSpecSchema = z.object({
  name: z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/u),
  secret: z.boolean().default(false),
  required: z.boolean().default(false),
  label: z.string().default(""),
  description: z.string().default(""),
  /** Visible variables only; may hold `${CJM_MODELS_DIR}` and its like. */
  default: z.string().nullish(),
  options: z.array(z.string()).nullish(),
});
export type EnvVarSpec = z.output<typeof envVarSpecSchema>;
export type EnvVarSpecInput = z.input<typeof envVarSpecSchema>;

export const resourcesSchema = z.looseObject({
  requires_gpu: z.boolean().default(false),
  platforms: z.array(z.string()).default([]),
  accelerators: z.array(z.string()).default([]),
});

export const actionManifestSchema = z.object({
  description: z.string().default(""),
  input_schema: jsonObject,
  output_schema: jsonObject,
  default: z.boolean().default(false),
  streaming: z.boolean().default(false),
  /** Same inputs, same outputs: a result may be taken from the cache. */
  repeatable: z.boolean().default(false),
});
export type ActionManifest = z.output<typeof actionManifestSchema>;

export const installSectionSchema = z.looseObject({
  runtime: z.enum(RUNTIMES).optional(),
  /** Argument vector that starts the worker. */
  command: z.array(withoutZero.min(1)).min(1).optional(),
  /** Folder of the environment this manifest switches to. */
  env_folder: z.string().optional(),
  /** Hash of everything the environment was built from. */
  env_key: z.string().optional(),
  cage: z.enum(["auto", "group"]).default("auto"),
  python_path: z.string().default(""),
  conda_env: z.string().default(""),
  db_path: z.string().default(""),
  env_vars: z.record(withoutZero, withoutZero).default({}),
  installed_at: z.string().default(""),
  installer_version: z.string().default(""),
  package_source: z.string().default(""),
});

export const codeSectionSchema = z.looseObject({
  name: z.string().regex(NAME_PATTERN, "letters, digits, _ and -, at most 64"),
  version: z.string().min(1),
  description: z.string().default(""),
  module: z.string().default(""),
  class: z.string().default(""),
  /** Entry file of a worker that needs no environment, relative to the package root. */
  entry: z.string().optional(),
  sdk: z.enum(["cjm", "cjm-substrate"]).optional(),
  protocol: z.int().optional(),
  actions: z.record(z.string(), actionManifestSchema).optional(),
  tasks: z.record(z.string(), z.array(z.string())).optional(),
  max_concurrent_requests: z.int().positive().optional(),
  monitor: z.boolean().optional(),
  code_hash: z.string().optional(),
  resources: resourcesSchema.nullish(),
  config_schema: jsonObject.nullish(),
  regenerated_at: z.string().nullish(),
  worker_env: z.array(envVarSpecSchema).nullish(),
  structural_surface: structuralSurfaceSchema.nullish(),
});

/** One capability as provisioning found it. Unknown keys are kept. */
export const manifestSchema = z
  .looseObject({
    format_version: z.literal(MANIFEST_FORMAT_VERSION),
    install: installSectionSchema.prefault({}),
    code: codeSectionSchema,
    drift_tracking: z
      .looseObject({
        config_schema_hash: sha256Schema.nullish(),
        structural_surface_hash: sha256Schema.nullish(),
      })
      .prefault({}),
    /** Operator's overlay, merged deeply over `code` when the manifest is read. */
    overrides: jsonObject.default({}),
  })
  .superRefine((manifest, context) => {
    const { install, code } = manifest;
    if (install.command !== undefined || code.entry !== undefined) return;
    for (const [section, key, value] of [
      ["install", "python_path", install.python_path],
      ["code", "module", code.module],
      ["code", "class", code.class],
    ] as const) {
      if (value === "") {
        context.addIssue({
          code: "custom",
          path: [section, key],
          message: "required where install.command and code.entry are absent",
        });
      }
    }
  });
export type Manifest = z.output<typeof manifestSchema>;
export type ManifestInput = z.input<typeof manifestSchema>;

/** One task adapter installed in some tool's environment. */
export const adapterManifestSchema = z.looseObject({
  unit: z.literal("adapter"),
  name: z.string(),
  version: z.string().default(""),
  task_name: z.string(),
  module: z.string(),
  class: z.string(),
  /** Names of the methods the adapter offers; absent where whoever described it did not say. */
  methods: z.array(z.string()).optional(),
  required_tool_protocol: z.string().default(""),
  protocol_members: z
    .object({
      methods: z
        .array(
          z.object({
            name: z.string(),
            signature: z.string().default(""),
            params: z.array(z.string()).optional(),
          }),
        )
        .default([]),
      properties: z.array(z.string()).default([]),
    })
    .prefault({}),
  conda_env: z.string().default(""),
  generated_at: z.string().default(""),
});
export type AdapterManifest = z.output<typeof adapterManifestSchema>;
