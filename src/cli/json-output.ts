import { z } from "zod";
import { hostStatusSchema } from "../door/index.ts";

/**
 * What commands print with `--json`. The schemas are generated into `schemas/cli.schema.json`; a
 * command imports only the types, so that it need not load zod to print.
 */
const problem = z.object({
  source: z.string(),
  line: z.int().optional(),
  column: z.int().optional(),
  key: z.string(),
  message: z.string(),
});

const environment = z.object({
  name: z.string(),
  kind: z.string().nullable(),
  state: z.enum(["ready", "stale", "broken", "not_installed", "unlisted", "unknown"]),
  detail: z.string().nullable(),
  folder: z.string().nullable(),
  version: z.string().nullable(),
});

const list = z.object({
  /** False: drift is not looked for at all. */
  drift_detection: z.boolean(),
  capabilities: z.array(
    z.object({
      name: z.string(),
      version: z.string(),
      state: z.enum(["installed", "shipped", "not installed", "unsupported"]),
      actions: z.array(z.string()),
      description: z.string(),
      environment: z.string(),
      manifest: z.string().nullable(),
      /** Keys of the operator's overlay. */
      overrides: z.array(z.string()),
      schema_drift: z.enum(["none", "changed", "overridden", "unchecked", "unknown"]),
      /** What its newest worker said otherwise than the manifest; null where none was asked. */
      drift: z.array(z.string()).nullable(),
    }),
  ),
  /** With `--envs`. */
  environments: z.array(environment).optional(),
  problems: z.array(problem),
});
export type ListOutput = z.output<typeof list>;

const gpuUse = z.object({ mb: z.number(), method: z.string(), confidence: z.number() });
const top = z.object({
  is_live: z.boolean(),
  source: z.string().nullable(),
  age_ms: z.number().nullable(),
  ram_total_mb: z.number(),
  ram_available_mb: z.number(),
  gpus: z.array(
    z.object({
      uuid: z.string(),
      index: z.int(),
      name: z.string().nullable(),
      total_mb: z.number().nullable(),
      used_mb: z.number().nullable(),
      free_mb: z.number().nullable(),
      foreign_mb: z.number().nullable(),
      utilization_percent: z.number().nullable(),
      lost: z.boolean(),
      instances: z.record(z.string(), gpuUse),
    }),
  ),
  instances: z.array(
    z.object({
      id: z.string(),
      pid: z.int(),
      processes: z.int(),
      ram_mb: z.number().nullable(),
      ram_peak_mb: z.number(),
      vram_peak_mb: z.number(),
      cpu_percent: z.number().nullable(),
      jobs: z.array(z.string()),
    }),
  ),
  jobs: z.array(
    z.object({
      id: z.string(),
      instance: z.string(),
      duration_ms: z.number(),
      cpu_percent: z.number().nullable(),
      ram_peak_mb: z.number().nullable(),
      vram_peak_mb: z.record(z.string(), z.number()).nullable(),
    }),
  ),
});
export type TopOutput = z.output<typeof top>;

const doctor = z.object({
  healthy: z.boolean(),
  checks: z.array(
    z.object({
      name: z.string(),
      /** `warning`: works, with less; `failed`: something named there does not work. */
      state: z.enum(["ok", "warning", "failed"]),
      detail: z.string(),
      /** What to do about it. */
      fix: z.string().nullable(),
    }),
  ),
});
export type DoctorOutput = z.output<typeof doctor>;

const nullableText = z.string().nullable();
const record = z.object({
  seq: z.int(),
  ts: z.string(),
  worker_session_id: nullableText,
  job_id: nullableText,
  level: z.string(),
  logger_name: z.string(),
  message: z.string(),
  exc_text: nullableText,
});
const chunk = z.object({
  seq: z.int(),
  ts: z.string(),
  worker_session_id: nullableText,
  stream: z.string(),
  content: z.string(),
});
const journalRow = z.looseObject({
  seq: z.int(),
  ts: z.string(),
  event_type: z.string(),
  job_id: nullableText,
  payload: z.record(z.string(), z.unknown()),
});

const finished = z.object({
  id: z.string(),
  name: nullableText,
  status: z.string(),
  submitted_at: z.string(),
  completed_at: nullableText,
  nodes: z.array(
    z.object({ id: z.string(), state: z.string(), job_id: nullableText, error: z.unknown() }),
  ),
  results: z.record(z.string(), z.unknown()),
});

const storedAdapter = z.object({
  id: z.string(),
  version: z.int(),
  task_type: z.string(),
  base_model_id: z.string(),
  rank: z.int(),
  created_at: z.string(),
  file_hash: z.string(),
  file_path: z.string(),
  file_size_bytes: z.int(),
  files: z.array(z.object({ name: z.string(), size: z.int(), sha256: z.string() })),
  source: z.string(),
  method: nullableText,
  session_id: nullableText,
  agent_id: nullableText,
  parent_ids: z.array(z.string()),
  generation: z.int(),
  training_task_hash: nullableText,
  pass_rate: z.number().nullable(),
  fitness_score: z.number().nullable(),
  is_archived: z.boolean(),
  level: z.string(),
  domain: nullableText,
});
/** By what is looked at: list, show, lineage, verify. */
const adapters = z.union([
  z.object({ adapters: z.array(storedAdapter) }),
  z.object({
    adapter: storedAdapter,
    decisions: z.array(
      z.object({
        ts: z.string(),
        kind: z.string(),
        reason: z.string(),
        evidence: z.record(z.string(), z.unknown()),
        job_id: nullableText,
      }),
    ),
  }),
  z.object({ id: z.string(), parents: z.record(z.string(), z.array(z.string())) }),
  z.object({
    ok: z.boolean(),
    verified: z.array(z.object({ id: z.string(), ok: z.boolean(), detail: nullableText })),
  }),
]);
export type AdaptersOutput = z.output<typeof adapters>;

const report = z.object({
  id: z.string(),
  status: z.string(),
  path: z.string(),
  bytes: z.int(),
  nodes: z.int(),
  jobs: z.int(),
});
export type ReportOutput = z.output<typeof report>;

/** By command; one that prints lines has the schema of a line. */
export const JSON_OUTPUTS = {
  adapters,
  cancel: z.object({ id: z.string(), cancelled: z.boolean() }),
  doctor,
  "generate-adapter-manifest": z.object({
    path: z.string(),
    manifest: z.record(z.string(), z.unknown()),
  }),
  "install-all": z.array(
    z.object({
      name: z.string(),
      kind: z.string(),
      outcome: z.enum(["installed", "unchanged", "failed"]),
      folder: nullableText,
      manifest_path: nullableText,
      adapters: z.array(z.string()),
      log_path: nullableText,
      error: nullableText,
      duration_ms: z.number(),
    }),
  ),
  list,
  "list-secrets": z.object({
    secrets: z.array(
      z.object({
        capability: z.string(),
        key: z.string(),
        state: z.enum(["set", "missing", "not set"]),
        declared: z.boolean(),
      }),
    ),
  }),
  logs: z.union([record, chunk, journalRow]),
  new: z.object({
    name: z.string(),
    lang: z.enum(["ts", "python"]),
    folder: z.string(),
    files: z.array(z.string()),
  }),
  "regenerate-manifest": z.object({ name: z.string(), manifest: z.string() }),
  remove: z.object({
    name: z.string(),
    manifests: z.array(z.string()),
    folders: z.array(z.string()),
    in_use: z.array(z.string()),
  }),
  report,
  resume: z.union([
    finished,
    z.object({ resumed: z.literal(false) }),
    z.object({ id: z.string(), resumed: z.boolean() }),
    z.object({ id: z.string(), status: z.string(), error: z.unknown() }),
  ]),
  retention: z.object({
    max_age_days: z.number().nullable(),
    max_total_mb: z.number().nullable(),
    records_deleted: z.int(),
    chunks_deleted: z.int(),
    results_max_age_days: z.number().nullable(),
    results_max_total_mb: z.number().nullable(),
    results_deleted: z.int(),
    result_bytes_deleted: z.int(),
  }),
  run: finished,
  "set-secret": z.looseObject({
    capability: z.string(),
    key: z.string(),
    changed: z.boolean(),
    reloaded: z.array(z.string()),
    failed: z.array(z.object({ id: z.string(), message: z.string() })),
  }),
  "setup-host": z.object({
    npm: z.array(z.string()),
    python: z.array(z.string()),
    installed: z.boolean(),
  }),
  "setup-runtime": z.object({
    path: z.string(),
    outcome: z.enum(["installed", "unchanged"]),
    sha256: z.string(),
  }),
  status: z.union([hostStatusSchema, z.object({ live: z.literal(false), data_dir: z.string() })]),
  top,
  validate: z.object({
    path: z.string(),
    format: z.string(),
    valid: z.boolean(),
    errors: z.array(z.string()),
    warnings: z.array(z.string()),
  }),
} as const satisfies Readonly<Record<string, z.ZodType>>;

export type InstallAllOutput = z.output<(typeof JSON_OUTPUTS)["install-all"]>;
