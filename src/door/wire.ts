import { z } from "zod";

/** Requests that a live host takes through its control socket. */
export const submitRequestSchema = z.object({
  composition: z.record(z.string(), z.unknown()),
  inputs: z.record(z.string(), z.unknown()).default({}),
});
export const targetRequestSchema = z.object({ id: z.string().min(1) });

export const clearProfilesSchema = z.object({ capability: z.string().min(1).optional() });

/** Tells that a secret in the store has changed; its value never crosses the door. */
export const secretChangedSchema = z.object({
  capability: z.string().min(1),
  key: z.string().min(1),
  change: z.enum(["set", "delete"]),
  scope: z.string().min(1).optional(),
});
export const secretEffectSchema = z.object({
  reloaded: z.array(z.string()),
  failed: z.array(z.object({ id: z.string(), message: z.string() })),
});

export const jobLineSchema = z.object({
  id: z.string(),
  instance: z.string(),
  composition_id: z.string().nullable(),
  node_id: z.string().nullable(),
  status: z.string(),
  priority: z.number(),
  attempt: z.number(),
  submitted_at: z.string(),
  started_at: z.string().nullable(),
  progress: z.number().nullable(),
  status_message: z.string(),
  block_reason: z.string().nullable(),
});
export type JobLine = z.output<typeof jobLineSchema>;

export const hostStatusSchema = z.object({
  pid: z.int(),
  version: z.string(),
  data_dir: z.string(),
  journal_available: z.boolean(),
  lanes: z.object({ in_use: z.int(), limit: z.int() }),
  jobs: z.record(z.string(), z.int()),
  running: z.array(jobLineSchema),
  pending: z.array(jobLineSchema),
  pending_total: z.int(),
  compositions: z.array(
    z.object({ id: z.string(), name: z.string().nullable(), status: z.string() }),
  ),
  instances: z.array(
    z.object({
      id: z.string(),
      capability: z.string(),
      state: z.string(),
      pid: z.int().nullable(),
      ram_mb: z.number().nullable(),
      vram_mb: z.number().nullable(),
    }),
  ),
  gpus: z.array(
    z.object({
      uuid: z.string(),
      total_mb: z.number(),
      free_mb: z.number(),
      reserved_mb: z.number(),
      resident_mb: z.number(),
    }),
  ),
  ram_free_mb: z.number().nullable(),
  disk_free_mb: z.number().nullable(),
});
export type HostStatus = z.output<typeof hostStatusSchema>;

const boundsSchema = z.object({
  max_age_days: z.number().positive().optional(),
  max_total_mb: z.number().nonnegative().optional(),
});
/** What diagnostics, and what bodies of results, to keep; an absent bound does not bound. */
export const retainRequestSchema = boundsSchema.extend({ results: boundsSchema.optional() });
export const retainReplySchema = z.object({
  records_deleted: z.int(),
  chunks_deleted: z.int(),
  results_deleted: z.int(),
  result_bytes_deleted: z.int(),
});

const gpuUseSchema = z.object({ mb: z.number(), method: z.string(), confidence: z.number() });
const measuredGpuSchema = z.object({
  uuid: z.string(),
  index: z.int(),
  name: z.string().nullable(),
  totalMb: z.number().nullable(),
  usedMb: z.number().nullable(),
  freeMb: z.number().nullable(),
  foreignMb: z.number().nullable(),
  utilizationPercent: z.number().nullable(),
  lost: z.boolean(),
  instances: z.record(z.string(), gpuUseSchema).readonly(),
});
const measuredInstanceSchema = z.object({
  instanceId: z.string(),
  pid: z.int(),
  processes: z.int(),
  hostMb: z.number().nullable(),
  cpuPercent: z.number().nullable(),
  hostPeakMb: z.number(),
  gpuPeakMb: z.number(),
  jobs: z.array(z.string()).readonly(),
});
const measuredJobSchema = z.object({
  jobId: z.string(),
  instanceId: z.string(),
  durationMs: z.number(),
  cpuPercentMean: z.number().nullable(),
  hostPeakMb: z.number().nullable(),
  gpuPeakMb: z.record(z.string(), z.number()).readonly().nullable(),
});

/** What the telemetry measures now; megabytes are MiB, null is unknown. */
export const measurementsSchema = z.object({
  snapshot: z.object({
    isLive: z.boolean(),
    source: z.string().nullable(),
    ageMs: z.number().nullable(),
    gpus: z.array(measuredGpuSchema).readonly(),
    instances: z.array(measuredInstanceSchema).readonly(),
    ram: z.object({ totalMb: z.number(), availableMb: z.number() }),
  }),
  /** Running jobs, as measured so far. */
  jobs: z.array(measuredJobSchema).readonly(),
});
export type Measurements = z.output<typeof measurementsSchema>;

const nodeSchema = z.object({
  id: z.string(),
  instance: z.string(),
  state: z.string(),
  jobId: z.string().nullable(),
  error: z.unknown(),
});
export const compositionReplySchema = z.looseObject({
  id: z.string(),
  name: z.string().nullable(),
  status: z.string(),
  submittedAt: z.string(),
  completedAt: z.string().nullable(),
  nodes: z.array(z.looseObject(nodeSchema.shape)),
  results: z.record(z.string(), z.unknown()),
});

export const queueEventSchema = z.object({
  seq: z.int().nullable(),
  type: z.string(),
  ts: z.string(),
  jobId: z.string().nullable(),
  instanceId: z.string().nullable(),
  compositionId: z.string().nullable(),
  nodeId: z.string().nullable(),
  runId: z.string().nullable(),
  actor: z.string().nullable(),
  payload: z.record(z.string(), z.unknown()),
});
