import { z } from "zod";
import { PLATFORMS } from "../protocol/index.ts";

export const RUNTIME_MODES = ["local", "system"] as const;
export const CONDA_TYPES = ["micromamba", "miniforge", "conda"] as const;
export const ADMISSION_POLICIES = ["wait", "refuse", "permissive"] as const;

const runtimeSchema = z.strictObject({
  mode: z
    .enum(RUNTIME_MODES)
    .default("system")
    .describe(
      "`local` keeps the conda runtime and its environments below `runtime.prefix`; `system` uses the conda found on PATH.",
    ),
  conda_type: z
    .enum(CONDA_TYPES)
    .default("conda")
    .describe("Which conda program builds environments of the kind `conda`."),
  prefix: z
    .string()
    .min(1)
    .optional()
    .describe(
      "Folder of the project's own conda runtime (mode `local`); absent: `runtime` in the data directory. Relative to cjm.yaml.",
    ),
  binaries: z
    .partialRecord(z.enum(PLATFORMS), z.string().min(1))
    .default({})
    .describe("Path of the conda program for each platform. Relative to cjm.yaml."),
});

const substrateSchema = z.strictObject({
  drift_detection: z
    .boolean()
    .default(true)
    .describe(
      "Compare the worker's live schema with the manifest's at every load. `false` skips the check, and `cjm-ctl list` says so.",
    ),
  empirical_tracking: z
    .boolean()
    .default(true)
    .describe(
      "Measure every job. `false` means that nothing is known of any job, so each runs alone.",
    ),
  prefetch_stall_threshold_seconds: z
    .number()
    .positive()
    .default(60)
    .describe("Seconds without any progress after which a prefetch or initialize is ended."),
  start_timeout_seconds: z
    .number()
    .positive()
    .default(30)
    .describe("Seconds a worker may take from its spawn to its ready frame."),
  terminate_grace_seconds: z
    .number()
    .nonnegative()
    .default(2)
    .describe("Seconds between SIGTERM and SIGKILL when a worker is ended."),
  diagnostics_retention_days: z
    .number()
    .default(30)
    .describe("Days that diagnostics are kept. 0 or less, and no size budget: kept for ever."),
  diagnostics_retention_max_mb: z
    .number()
    .positive()
    .optional()
    .describe("Size budget of diagnostics.db in MB; the oldest rows go first."),
  pass_env: z
    .array(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*\*?$/u, "a variable's name or `PREFIX_*`"))
    .default([])
    .describe("Variables of the host's environment that workers get too: names, or `PREFIX_*`."),
  cage: z
    .enum(["auto", "group"])
    .default("auto")
    .describe(
      "`auto` holds a worker's descendants by the kernel where it can; `group` only by their process group.",
    ),
});

const queueSchema = z.strictObject({
  max_concurrent_lanes: z.int().min(1).max(1024).default(4).describe("Jobs that may run at once."),
  cancel_timeout_seconds: z
    .number()
    .nonnegative()
    .default(3)
    .describe("Seconds a cancelled call may take to end by itself before it is ended by force."),
  max_retries: z
    .int()
    .min(0)
    .max(100)
    .default(1)
    .describe("Times a job that failed for want of memory, or in passing, runs again."),
  vram_margin_mb: z
    .number()
    .nonnegative()
    .optional()
    .describe(
      "VRAM in MB kept free on every GPU. Absent: the larger of 512 MB and 5 % of the GPU.",
    ),
  min_free_disk_mb: z
    .number()
    .nonnegative()
    .default(512)
    .describe(
      "New work is refused while the data directory's disk has less than this free, in MB.",
    ),
  admission: z
    .enum(ADMISSION_POLICIES)
    .default("wait")
    .describe(
      "What happens to a job that does not fit now: it waits (`wait`), fails (`refuse`), or runs with no check at all (`permissive`).",
    ),
  history: z
    .int()
    .min(0)
    .default(1000)
    .describe("Finished jobs kept in memory; all are in the journal."),
});

/** What `cjm.yaml` may contain: every key optional. */
export const cjmConfigSchema = z
  .strictObject({
    data_dir: z
      .string()
      .min(1)
      .default(".cjm")
      .describe(
        "Folder of everything the host keeps: journal, manifests, environments, secrets. Relative to cjm.yaml.",
      ),
    capabilities_config: z
      .string()
      .min(1)
      .default("capabilities.yaml")
      .describe("The file that names the capabilities to install. Relative to cjm.yaml."),
    models_dir: z
      .string()
      .min(1)
      .optional()
      .describe(
        "Folder for downloaded models, given to workers as CJM_MODELS_DIR. Relative to cjm.yaml.",
      ),
    runtime: runtimeSchema.prefault({}).describe("The conda runtime, where one is used."),
    substrate: substrateSchema.prefault({}).describe("Behaviour of the host towards its workers."),
    queue: queueSchema.prefault({}).describe("How jobs are admitted, cancelled and retried."),
  })
  .describe("Configuration of a cjm-substrate project (cjm.yaml).");
export type CjmConfigFile = z.input<typeof cjmConfigSchema>;
export type CjmConfig = z.output<typeof cjmConfigSchema>;
