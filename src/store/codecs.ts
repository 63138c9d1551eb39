import { z } from "zod";
import { CjmError } from "../errors/index.ts";
import { jobErrorSchema } from "../protocol/index.ts";
import {
  COMPOSITION_STATUSES,
  JOB_STATUSES,
  STORED_NODE_STATES,
  type CacheEntry,
  type CompositionRecord,
  type ForEachItems,
  type InstanceConfigRecord,
  type JobRecord,
  type JournalEvent,
  type NodeRecord,
  type ProfileRecord,
} from "./records.ts";

export type SqlValue = string | number | null;
export type SqlRow = Readonly<Record<string, SqlValue>>;

/** How a field lies in its row: as it is, as JSON, as 0 or 1, or as a text or file column pair. */
type FieldKind = "plain" | "json" | "flag" | "stored";

/** Both directions between a record and its row, from one description. */
export interface TableCodec<Row> {
  readonly table: string;
  /** Field to its first column; a `stored` field has a second one, `<column>_file`. */
  readonly columns: ReadonlyMap<string, { readonly name: string; readonly kind: FieldKind }>;
  /** @throws {CjmError} `DATABASE_CORRUPT` for a row that this program cannot have written. */
  decode(row: object): Row;
}

const nullable = z.string().nullable();
const number = z.number().nullable();
const jsonObject = z.record(z.string(), z.unknown());
const hashes = z.record(z.string(), z.string());
const storedValue = z.discriminatedUnion("kind", [
  z.object({ kind: z.literal("inline"), json: z.string() }),
  z.object({ kind: z.literal("file"), hash: z.string() }),
]);

const journalEvent: z.ZodType<JournalEvent> = z.object({
  seq: z.number(),
  eventId: z.string(),
  ts: z.string(),
  eventType: z.string(),
  runId: nullable,
  jobId: nullable,
  compositionId: nullable,
  nodeId: nullable,
  capabilityInstanceId: nullable,
  capabilityName: nullable,
  configHash: nullable,
  taskName: nullable,
  method: nullable,
  workerSessionId: nullable,
  actor: nullable,
  workerReported: z.boolean(),
  payload: jsonObject,
});

const jobRecord: z.ZodType<JobRecord> = z.object({
  id: z.string(),
  capabilityInstanceId: z.string(),
  capabilityName: nullable,
  action: nullable,
  taskName: nullable,
  method: nullable,
  kwargs: jsonObject,
  control: jsonObject,
  priority: z.number(),
  status: z.enum(JOB_STATUSES),
  submittedAt: z.string(),
  startedAt: nullable,
  completedAt: nullable,
  attempt: z.number(),
  retryCount: z.number(),
  maxRetries: z.number(),
  timeoutMs: number,
  compositionId: nullable,
  nodeId: nullable,
  itemIndex: number,
  runId: nullable,
  actor: nullable,
  result: storedValue.nullable(),
  error: jobErrorSchema.nullable(),
  blockReason: nullable,
  cancelRequestedAt: nullable,
  cancelPhase: nullable,
  configHash: nullable,
  profileKey: nullable,
  inputBucket: number,
  vramLimitMb: number,
  progress: number,
  statusMessage: nullable,
  workerSessionId: nullable,
});

const compositionRecord: z.ZodType<CompositionRecord> = z.object({
  id: z.string(),
  name: nullable,
  spec: z.unknown(),
  status: z.enum(COMPOSITION_STATUSES),
  failFast: z.boolean(),
  priority: z.number(),
  runId: nullable,
  actor: nullable,
  cancelRequested: z.boolean(),
  submittedAt: z.string(),
  completedAt: nullable,
});

const nodeRecord: z.ZodType<NodeRecord> = z.object({
  compositionId: z.string(),
  nodeId: z.string(),
  itemIndex: z.number(),
  state: z.enum(STORED_NODE_STATES),
  jobId: nullable,
  result: storedValue.nullable(),
  error: jobErrorSchema.nullable(),
  skipCause: z.enum(["when", "upstream"]).nullable(),
  provenance: z.object({
    codeHash: z.string().optional(),
    configHash: z.string().optional(),
    inputHashes: hashes.optional(),
    outputHashes: hashes.optional(),
    upstream: z.array(z.string()).optional(),
    cacheKey: z.string().optional(),
  }),
});

const forEachItems: z.ZodType<ForEachItems> = z.object({
  compositionId: z.string(),
  nodeId: z.string(),
  count: z.number(),
  items: storedValue,
});

const profileRecord: z.ZodType<ProfileRecord> = z.object({
  key: z.string(),
  capability: z.string(),
  body: jsonObject,
  updatedAt: z.string(),
});

const instanceConfigRecord: z.ZodType<InstanceConfigRecord> = z.object({
  instanceId: z.string(),
  capabilityName: z.string(),
  config: jsonObject,
  enabled: z.boolean(),
  updatedAt: z.string(),
});

const cacheEntry: z.ZodType<CacheEntry> = z.object({
  key: z.string(),
  capabilityName: z.string(),
  compositionId: nullable,
  nodeId: nullable,
  jobId: nullable,
  result: storedValue,
  outputs: hashes,
  createdAt: z.string(),
});

export const CODECS = {
  journal: codec("journal", journalEvent, { payload: "json", workerReported: "flag" }),
  job: codec("job", jobRecord, {
    kwargs: "json",
    control: "json",
    error: "json",
    result: "stored",
  }),
  composition: codec("composition_run", compositionRecord, {
    spec: "json",
    failFast: "flag",
    cancelRequested: "flag",
  }),
  node: codec("node_run", nodeRecord, { result: "stored", error: "json", provenance: "json" }),
  items: codec("for_each_items", forEachItems, { items: "stored" }),
  profile: codec("profile", profileRecord, { body: "json" }),
  config: codec("instance_config", instanceConfigRecord, { config: "json", enabled: "flag" }),
  cache: codec("result_cache", cacheEntry, { result: "stored", outputs: "json" }),
};

function codec<Row>(
  table: string,
  schema: z.ZodType<Row>,
  special: Readonly<Record<string, FieldKind>>,
): TableCodec<Row> {
  const fields = schema instanceof z.ZodObject ? Object.keys(schema.shape) : [];
  const columns = new Map(
    fields.map((field) => [field, { name: snakeCase(field), kind: special[field] ?? "plain" }]),
  );
  const decode = (row: object): Row => {
    try {
      const values = new Map<string, unknown>(Object.entries(row));
      const record = Object.fromEntries(
        [...columns].map(([field, { name, kind }]) => [field, decodeField(values, name, kind)]),
      );
      return schema.parse(record);
    } catch (cause) {
      throw new CjmError("DATABASE_CORRUPT", `A row of table ${table} is not readable`, { cause });
    }
  };
  return { table, columns, decode };
}

function snakeCase(field: string): string {
  return field.replaceAll(/[A-Z]/gu, (letter) => `_${letter.toLowerCase()}`);
}

function decodeField(row: ReadonlyMap<string, unknown>, name: string, kind: FieldKind): unknown {
  const value = row.get(name);
  if (kind === "plain") return value;
  if (kind === "flag") return value === 1;
  if (kind === "json") return typeof value === "string" ? JSON.parse(value) : null;
  const hash = row.get(`${name}_file`);
  if (typeof hash === "string") return { kind: "file", hash };
  return typeof value === "string" ? { kind: "inline", json: value } : null;
}
