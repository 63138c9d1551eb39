import type { JobError } from "../errors/index.ts";

export const JOB_STATUSES = ["pending", "running", "completed", "failed", "cancelled"] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];
export const STORED_NODE_STATES = [...JOB_STATUSES, "skipped"] as const;
export type StoredNodeState = (typeof STORED_NODE_STATES)[number];

/** A JSON object as it is stored. */
export type JsonObject = Readonly<Record<string, unknown>>;

/**
 * A stored JSON value: its text where it is at most 256 KiB, else the hash of a file in
 * `<data_dir>/results/`. Made by {@link ResultFiles.store}, read by {@link ResultFiles.load}.
 */
export type StoredValue =
  | { readonly kind: "inline"; readonly json: string }
  | { readonly kind: "file"; readonly hash: string };

/** What the account of action says about one event; absent members are stored as NULL. */
export interface JournalEntry {
  /** A member of the vocabulary or any other word: unknown types round-trip. */
  readonly eventType: string;
  readonly runId?: string | null | undefined;
  readonly jobId?: string | null | undefined;
  readonly compositionId?: string | null | undefined;
  readonly nodeId?: string | null | undefined;
  readonly capabilityInstanceId?: string | null | undefined;
  readonly capabilityName?: string | null | undefined;
  readonly configHash?: string | null | undefined;
  readonly taskName?: string | null | undefined;
  readonly method?: string | null | undefined;
  readonly workerSessionId?: string | null | undefined;
  readonly actor?: string | null | undefined;
  /** The payload came from a worker; the host still wrote the row. @default false */
  readonly workerReported?: boolean | undefined;
  /** References, hashes and key names; never content. @default {} */
  readonly payload?: JsonObject | undefined;
}

/** One committed row of the journal. */
export interface JournalEvent {
  /** Cursor: grows by commit order, never reused. */
  readonly seq: number;
  readonly eventId: string;
  /** Wall clock, ISO 8601 in UTC with milliseconds. */
  readonly ts: string;
  readonly eventType: string;
  readonly runId: string | null;
  readonly jobId: string | null;
  readonly compositionId: string | null;
  readonly nodeId: string | null;
  readonly capabilityInstanceId: string | null;
  readonly capabilityName: string | null;
  readonly configHash: string | null;
  readonly taskName: string | null;
  readonly method: string | null;
  readonly workerSessionId: string | null;
  readonly actor: string | null;
  readonly workerReported: boolean;
  readonly payload: JsonObject;
}

/** The run state of one job. Times are ISO 8601 in UTC. */
export interface JobRecord {
  readonly id: string;
  readonly capabilityInstanceId: string;
  readonly capabilityName: string | null;
  readonly action: string | null;
  readonly taskName: string | null;
  readonly method: string | null;
  readonly kwargs: JsonObject;
  readonly control: JsonObject;
  readonly priority: number;
  readonly status: JobStatus;
  readonly submittedAt: string;
  readonly startedAt: string | null;
  readonly completedAt: string | null;
  /** Attempts begun so far. */
  readonly attempt: number;
  readonly retryCount: number;
  readonly maxRetries: number;
  readonly timeoutMs: number | null;
  readonly compositionId: string | null;
  readonly nodeId: string | null;
  /** Position in the node's `for_each` list. */
  readonly itemIndex: number | null;
  readonly runId: string | null;
  readonly actor: string | null;
  readonly result: StoredValue | null;
  readonly error: JobError | null;
  readonly blockReason: string | null;
  readonly cancelRequestedAt: string | null;
  readonly cancelPhase: string | null;
  readonly configHash: string | null;
  readonly profileKey: string | null;
  readonly inputBucket: number | null;
  readonly vramLimitMb: number | null;
  /** Last progress seen, 0 to 1; liveness is not journaled, its last value rides this row. */
  readonly progress: number | null;
  readonly statusMessage: string | null;
  readonly workerSessionId: string | null;
}

type JobRequired =
  "id" | "capabilityInstanceId" | "kwargs" | "control" | "priority" | "status" | "submittedAt";

/** A job to insert: what a new one always has, and anything else. */
export type NewJob = Pick<JobRecord, JobRequired> & Partial<Omit<JobRecord, JobRequired>>;
/** The columns of a job that change; the rest stay. */
export type JobChanges = Partial<Omit<JobRecord, "id">>;

export const COMPOSITION_STATUSES = ["running", "completed", "failed", "cancelled"] as const;
export type CompositionStatus = (typeof COMPOSITION_STATUSES)[number];

/** The run state of one composition. */
export interface CompositionRecord {
  readonly id: string;
  readonly name: string | null;
  /** The composition as it was submitted, inputs bound. */
  readonly spec: unknown;
  readonly status: CompositionStatus;
  readonly failFast: boolean;
  readonly priority: number;
  readonly runId: string | null;
  readonly actor: string | null;
  readonly cancelRequested: boolean;
  readonly submittedAt: string;
  readonly completedAt: string | null;
}
export type CompositionChanges = Partial<
  Pick<CompositionRecord, "status" | "cancelRequested" | "completedAt" | "priority">
>;

/** Where a node's result comes from, by content. */
export interface Provenance {
  readonly codeHash?: string | undefined;
  readonly configHash?: string | undefined;
  /** Kwarg path to the hash of the file or folder given there. */
  readonly inputHashes?: Readonly<Record<string, string>> | undefined;
  /** Result path to the hash of the file or folder returned there. */
  readonly outputHashes?: Readonly<Record<string, string>> | undefined;
  /** Ids of the nodes whose outputs this one was bound to. */
  readonly upstream?: readonly string[] | undefined;
  /** Cache key this result was taken from. */
  readonly cacheKey?: string | undefined;
}

/** `itemIndex` of the row that stands for the node itself, not for an item of its `for_each`. */
export const WHOLE_NODE = -1;

/** The run state of one node, or of one item of a `for_each` node. No row means pending. */
export interface NodeRecord {
  readonly compositionId: string;
  readonly nodeId: string;
  /** {@link WHOLE_NODE} or the position in the `for_each` list. */
  readonly itemIndex: number;
  readonly state: StoredNodeState;
  readonly jobId: string | null;
  /** Set where no job holds it, e.g. a result taken from the cache. */
  readonly result: StoredValue | null;
  readonly error: JobError | null;
  /** Why it was skipped: a `when` that said no, or something upstream that did not complete. */
  readonly skipCause: "when" | "upstream" | null;
  readonly provenance: Provenance;
}

/** The list a `for_each` node was expanded to, fixed when its source completed. */
export interface ForEachItems {
  readonly compositionId: string;
  readonly nodeId: string;
  readonly count: number;
  readonly items: StoredValue;
}

/** The measured need behind one profile key; the body belongs to the scheduler. */
export interface ProfileRecord {
  readonly key: string;
  readonly capability: string;
  readonly body: JsonObject;
  readonly updatedAt: string;
}

/** The persisted configuration of an instance. */
export interface InstanceConfigRecord {
  readonly instanceId: string;
  readonly capabilityName: string;
  readonly config: JsonObject;
  /** False: the host accepts no jobs for it. */
  readonly enabled: boolean;
  readonly updatedAt: string;
}

/** A result that may be used again for the same code, config and inputs. */
export interface CacheEntry {
  readonly key: string;
  readonly capabilityName: string;
  readonly compositionId: string | null;
  readonly nodeId: string | null;
  readonly jobId: string | null;
  readonly result: StoredValue;
  /** Result path to the hash of the file or folder there. */
  readonly outputs: Readonly<Record<string, string>>;
  readonly createdAt: string;
}
