import { dirRefSchema, z } from "cjm-substrate/worker";
import { folderSchema } from "./adapter-folder.ts";
import {
  decisionSchema,
  idSchema,
  labelSchema,
  LEVELS,
  recordSchema,
  shareSchema,
  storedRecordSchema,
} from "./record.ts";

const MAX_RECORDS = 10_000;
/** It goes into the journal as it is. */
const MAX_EVIDENCE = 16_384;

const nullableLabel = labelSchema.nullable().default(null);
const evidenceSchema = z
  .record(z.string(), z.json())
  .refine((evidence) => JSON.stringify(evidence).length <= MAX_EVIDENCE, "at most 16 KiB as JSON")
  .default({})
  .describe("The numbers it is decided by; kept with the decision.");

const storeFactsSchema = z.strictObject({
  id: idSchema.optional().describe("Absent: <task_type>-<12 hex of the content>."),
  version: z.int().positive().default(1),
  task_type: labelSchema,
  base_model_id: z.string().optional().describe("Absent: what adapter_config.json names."),
  rank: z.int().positive().optional().describe("Refuse an adapter of another rank."),
  source: labelSchema.default("manual"),
  method: nullableLabel.describe("How it was merged."),
  session_id: nullableLabel,
  agent_id: nullableLabel,
  parent_ids: z
    .array(idSchema)
    .max(64)
    .default([])
    .describe("What it was made from; must be here."),
  training_task_hash: nullableLabel,
  pass_rate: shareSchema.nullable().default(null),
  fitness_score: shareSchema.nullable().default(null),
  on_duplicate: z
    .enum(["refuse", "return"])
    .default("refuse")
    .describe("return: the same adapter under the same id is no error."),
});
export type StoreFacts = z.output<typeof storeFactsSchema>;

export const storeInputSchema = storeFactsSchema.extend({
  adapter: folderSchema.describe("Folder with adapter_config.json and adapter_model.safetensors."),
});
export const storeOutputSchema = z.object({
  record: recordSchema,
  stored: z.boolean().describe("False: it was there."),
});

export const idInputSchema = z.strictObject({ id: idSchema });
export const retrieveOutputSchema = z.object({
  record: recordSchema,
  decisions: z.array(decisionSchema).describe("Everything that was decided about it, in order."),
});

export const queryInputSchema = z.strictObject({
  task_type: labelSchema.optional(),
  base_model_id: z.string().optional().describe("Only those of this base."),
  source: labelSchema.optional(),
  level: z.enum(LEVELS).optional(),
  domain: labelSchema.optional(),
  parent_ids: z.array(idSchema).optional().describe("Made from exactly these, in any order."),
  unevaluated: z.boolean().default(false).describe("Only those without a pass rate."),
  include_archived: z.boolean().default(false),
  verify: z
    .boolean()
    .default(false)
    .describe("Refuse if the files of one are not what was stored."),
  limit: z.int().positive().max(MAX_RECORDS).default(MAX_RECORDS),
});
export type Query = Omit<z.output<typeof queryInputSchema>, "verify">;
export const recordsOutputSchema = z.object({ records: z.array(recordSchema) });

export const bestInputSchema = z.strictObject({
  task_type: labelSchema,
  top_k: z.int().positive().max(MAX_RECORDS).default(3),
  level: z.enum(LEVELS).optional(),
});

export const taskTypesOutputSchema = z.object({ task_types: z.array(z.string()) });

export const evaluationsInputSchema = z.strictObject({ task_type: labelSchema.optional() });
const tallySchema = z.object({
  task: z.string(),
  n: z.int().nonnegative(),
  c: z.int().nonnegative(),
});
export const evaluationsOutputSchema = z.object({
  evaluations: z.array(z.object({ id: z.string(), tasks: z.array(tallySchema) })),
});
/** Evidence of a fitness that says how each task went. */
export const talliedSchema = z.looseObject({ tasks: z.array(tallySchema) });

export const solvedInputSchema = z.strictObject({
  training_task_hash: labelSchema,
  threshold: shareSchema.default(0.95),
});
export const solvedOutputSchema = z.object({
  solved: z.boolean(),
  by: z.string().nullable().describe("The best adapter that solves it."),
});

export const fitnessInputSchema = z.strictObject({
  id: idSchema,
  pass_rate: shareSchema,
  fitness_score: shareSchema,
  evidence: evidenceSchema,
});
export const archiveInputSchema = z.strictObject({
  id: idSchema,
  reason: z.string().default(""),
  evidence: evidenceSchema,
});
export const promoteInputSchema = archiveInputSchema.extend({
  domain: labelSchema.describe("What it is good for beyond its own task."),
});
export const recordOutputSchema = z.object({ record: recordSchema });

export const lineageOutputSchema = z.object({
  ids: z.array(z.string()).describe("The adapter, its first parent, that one's first parent, …"),
});
export const dagOutputSchema = z.object({
  parents: z.record(z.string(), z.array(z.string())).describe("Of it and of all its ancestors."),
});

export const verifyInputSchema = z.strictObject({
  ids: z.array(idSchema).optional().describe("Absent: all, and what lies there without a record."),
});
export const verifyOutputSchema = z.object({
  ok: z.boolean(),
  adapters: z.array(
    z.object({
      id: z.string(),
      state: z.enum(["ok", "missing", "changed"]),
      detail: z.string(),
    }),
  ),
  strays: z.array(z.string()).describe("Folders that no record has."),
});

export const checkoutOutputSchema = z.object({
  record: recordSchema,
  adapter: dirRefSchema.describe("Its files, hashed as they were handed out."),
});

export const exportInputSchema = z.strictObject({
  ids: z.array(idSchema).optional().describe("Absent: all."),
});
export const exportOutputSchema = z.object({
  archive: dirRefSchema.describe("registry.json and the files of each adapter."),
  ids: z.array(z.string()),
});
export const importInputSchema = z.strictObject({
  archive: folderSchema.describe("What export gave."),
});
export const importOutputSchema = z.object({
  imported: z.array(z.string()),
  present: z.array(z.string()).describe("Those that were here, byte for byte."),
});

/** `registry.json` of an export. */
export const manifestSchema = z.object({
  format: z.literal("cjm-adapter-registry"),
  version: z.literal(1),
  adapters: z.array(
    z.object({
      folder: z.string().regex(/^[0-9a-f]{64}$/u),
      record: storedRecordSchema,
      decisions: z.array(decisionSchema),
    }),
  ),
});
export type Manifest = z.output<typeof manifestSchema>;
