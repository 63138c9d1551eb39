import { z } from "cjm-substrate/worker";

export const hashSchema = z.string().regex(/^sha256:[0-9a-f]{64}$/u, "expected sha256:<64 hex>");
/** No path is ever made of an id; it is short and printable for those who read it. */
export const idSchema = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/u, "letters, digits and . _ : -, at most 128");
export const labelSchema = z.string().min(1).max(200);
export const shareSchema = z.number().min(0).max(1);

/** `domain`: good beyond the task that it was made for. */
export const LEVELS = ["task", "domain"] as const;

const storedFileSchema = z.object({
  name: z.string(),
  size: z.int().nonnegative(),
  sha256: hashSchema,
});

/** What is fixed when an adapter is stored. */
const factsSchema = z.object({
  id: idSchema,
  version: z.int().positive(),
  task_type: labelSchema,
  base_model_id: z.string(),
  rank: z.int().positive(),
  created_at: z.string().describe("ISO 8601, UTC."),
  file_hash: hashSchema.describe("Of the folder, as a DirRef has it."),
  file_size_bytes: z.int().nonnegative(),
  files: z.array(storedFileSchema),
  source: labelSchema,
  method: labelSchema.nullable().describe("How it was merged."),
  session_id: labelSchema.nullable(),
  agent_id: labelSchema.nullable(),
  parent_ids: z.array(idSchema),
  generation: z.int().nonnegative(),
  training_task_hash: labelSchema.nullable(),
});

/** What decisions change. */
const standingSchema = z.object({
  pass_rate: shareSchema.nullable(),
  fitness_score: shareSchema.nullable(),
  is_archived: z.boolean(),
  level: z.enum(LEVELS),
  domain: labelSchema.nullable(),
});

/** One adapter as the database holds it; where its files lie is a matter of the folder. */
export const storedRecordSchema = factsSchema.extend(standingSchema.shape);
export type StoredRecord = z.output<typeof storedRecordSchema>;
export type Standing = z.output<typeof standingSchema>;

export const recordSchema = storedRecordSchema.extend({
  file_path: z.string().describe("Absolute path of the folder with the files."),
});
export type AdapterRecord = z.output<typeof recordSchema>;

export const DECISION_KINDS = ["stored", "imported", "evaluated", "promoted", "archived"] as const;
export const decisionSchema = z.object({
  ts: z.string(),
  kind: z.enum(DECISION_KINDS),
  reason: z.string(),
  evidence: z.record(z.string(), z.json()).describe("The numbers that it was made by."),
  job_id: z.string().nullable(),
});
export type Decision = z.output<typeof decisionSchema>;
export type DecisionKind = Decision["kind"];
export type Evidence = Decision["evidence"];
