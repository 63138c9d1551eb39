import { z } from "zod";
import { ERROR_CATEGORIES } from "../errors/index.ts";

export const resourceShortfallSchema = z.object({
  resource: z.enum(["gpu_vram_mb", "system_ram_mb", "disk_mb"]),
  needed: z.number(),
  available: z.number(),
});

/** A failure on the wire. `code` is absent from workers of the original. */
export const jobErrorSchema = z.object({
  category: z.enum(ERROR_CATEGORIES),
  code: z.string().default("CAPABILITY_ERROR"),
  message: z.string(),
  /** A word that says which case of the code it is. */
  reason: z.string().nullish(),
  retriable: z.boolean().default(false),
  original_exc_repr: z.string().default(""),
  traceback: z.string().nullish(),
  retry_after_seconds: z.number().nullish(),
  fields_invalid: z.array(z.string()).nullish(),
  resource_shortfall: resourceShortfallSchema.nullish(),
  capability_name: z.string().nullish(),
  capability_instance_id: z.string().nullish(),
  occurred_at: z.string().nullish(),
});

export const jobErrorBodySchema = z.object({ _job_error: jobErrorSchema });

/** Identity and control of one call; travels beside kwargs, never inside them. */
export const envelopeSchema = z.object({
  job_id: z.string().nullish(),
  run_id: z.string().nullish(),
  composition_id: z.string().nullish(),
  node_id: z.string().nullish(),
  actor: z.string().nullish(),
  control: z.record(z.string(), z.unknown()).default({}),
  traceparent: z.string().nullish(),
  /** Milliseconds the call may still take when the worker receives it. */
  deadline_ms: z.number().nonnegative().nullish(),
  /** Existing folder of this attempt; every file the call returns by reference must lie in it. */
  output_folder: z.string().nullish(),
  capability_instance_id: z.string().nullish(),
});
export type Envelope = z.output<typeof envelopeSchema>;
export type EnvelopeInput = z.input<typeof envelopeSchema>;

export const executeRequestSchema = z.object({
  args: z.array(z.unknown()).default([]),
  kwargs: z.record(z.string(), z.unknown()).default({}),
  envelope: envelopeSchema.prefault({}),
});

export const taskRequestSchema = z.object({
  task: z.string(),
  method: z.string(),
  kwargs: z.record(z.string(), z.unknown()).default({}),
  envelope: envelopeSchema.prefault({}),
});

export const cancelRequestSchema = z.object({ job_id: z.string().nullish() });
export const releaseRequestSchema = z.object({ level: z.string().default("unload") });
export const reconfigureRequestSchema = z.object({
  old_config: z.record(z.string(), z.unknown()).default({}),
  new_config: z.record(z.string(), z.unknown()),
});

export const healthSchema = z.object({
  status: z.string(),
  pid: z.int(),
  name: z.string(),
  version: z.string(),
  protocol: z.int().optional(),
  features: z.array(z.string()).default([]),
});

export const statsSchema = z.object({
  pid: z.int(),
  cpu_percent: z.number().nullable(),
  memory_rss_mb: z.number().nullable(),
  subtree_pids: z.array(z.int()).default([]),
  usage: z
    .record(z.string(), z.number())
    .nullish()
    .transform((usage) => usage ?? {}),
});

/** The answer of a life-cycle endpoint. */
export const statusReplySchema = z.looseObject({
  status: z.string(),
  detail: z.string().nullish(),
});

export const WIRE_KIND_KEY = "__wire__";
export const WIRE_DATA_KEY = "data";
