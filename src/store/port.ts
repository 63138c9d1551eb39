import type {
  CacheEntry,
  CompositionChanges,
  CompositionRecord,
  CompositionStatus,
  ForEachItems,
  InstanceConfigRecord,
  JobChanges,
  JobRecord,
  JobStatus,
  JournalEntry,
  JournalEvent,
  NewJob,
  NodeRecord,
  ProfileRecord,
} from "./records.ts";

/**
 * One row operation of a unit.
 *
 * `insert` refuses an id that exists, `update` refuses one that does not, `put` replaces. A refused
 * operation fails its whole unit.
 */
export type StoreWrite =
  | { readonly op: "journal.append"; readonly event: JournalEntry }
  | { readonly op: "job.insert"; readonly job: NewJob }
  | { readonly op: "job.update"; readonly id: string; readonly changes: JobChanges }
  | { readonly op: "composition.insert"; readonly composition: CompositionRecord }
  | { readonly op: "composition.update"; readonly id: string; readonly changes: CompositionChanges }
  | { readonly op: "node.put"; readonly node: NodeRecord }
  | { readonly op: "items.put"; readonly items: ForEachItems }
  | { readonly op: "profile.put"; readonly profile: ProfileRecord }
  | { readonly op: "profile.delete"; readonly key: string }
  | { readonly op: "config.put"; readonly config: InstanceConfigRecord }
  | { readonly op: "config.delete"; readonly instanceId: string }
  | { readonly op: "cache.put"; readonly entry: CacheEntry }
  | { readonly op: "cache.delete"; readonly key: string };

/** What a committed unit became. */
export interface StagedResult {
  /** The unit's journal rows in order, with their `seq`. */
  readonly events: readonly JournalEvent[];
}

/** All filters are combined with AND; results are ordered by `seq`. */
export interface JournalFilter {
  readonly jobId?: string | undefined;
  readonly runId?: string | undefined;
  readonly compositionId?: string | undefined;
  readonly capabilityInstanceId?: string | undefined;
  readonly workerSessionId?: string | undefined;
  readonly eventType?: string | undefined;
  /** Tail cursor: rows with a greater `seq`. */
  readonly afterSeq?: number | undefined;
  readonly sinceTs?: Date | undefined;
  readonly untilTs?: Date | undefined;
  readonly limit?: number | undefined;
  /** Newest first. @default false */
  readonly descending?: boolean | undefined;
}

export interface JobFilter {
  readonly status?: JobStatus | readonly JobStatus[] | undefined;
  readonly compositionId?: string | undefined;
  readonly nodeId?: string | undefined;
  readonly capabilityInstanceId?: string | undefined;
  readonly runId?: string | undefined;
  readonly limit?: number | undefined;
  /** Newest submission first. @default false */
  readonly descending?: boolean | undefined;
}

export interface CompositionFilter {
  readonly status?: CompositionStatus | readonly CompositionStatus[] | undefined;
  readonly limit?: number | undefined;
  /** Newest submission first. @default false */
  readonly descending?: boolean | undefined;
}

/** Everything that can be read; answers see committed rows only. */
export interface StoreReads {
  queryJournal(filter?: JournalFilter): Promise<readonly JournalEvent[]>;
  countJournal(eventType?: string): Promise<number>;
  /** Terminal `state_transition` rows, newest first: the durable job history. */
  terminalStateEvents(limit?: number): Promise<readonly JournalEvent[]>;
  getJob(id: string): Promise<JobRecord | undefined>;
  /** In submission order unless `descending`. */
  listJobs(filter?: JobFilter): Promise<readonly JobRecord[]>;
  /** Pending and running jobs in submission order; its cost does not grow with the history. */
  unfinishedJobs(): Promise<readonly JobRecord[]>;
  getComposition(id: string): Promise<CompositionRecord | undefined>;
  /** Running compositions in submission order; its cost does not grow with the history. */
  unfinishedCompositions(): Promise<readonly CompositionRecord[]>;
  listCompositions(filter?: CompositionFilter): Promise<readonly CompositionRecord[]>;
  /** Every stored node and item of a composition, items after their node. */
  nodeRuns(compositionId: string): Promise<readonly NodeRecord[]>;
  forEachItems(compositionId: string): Promise<readonly ForEachItems[]>;
  /** Nodes whose provenance names this hash as an input or output. */
  nodesByHash(hash: string): Promise<readonly NodeRecord[]>;
  getProfile(key: string): Promise<ProfileRecord | undefined>;
  listProfiles(capability?: string): Promise<readonly ProfileRecord[]>;
  getInstanceConfig(instanceId: string): Promise<InstanceConfigRecord | undefined>;
  listInstanceConfigs(): Promise<readonly InstanceConfigRecord[]>;
  cacheEntry(key: string): Promise<CacheEntry | undefined>;
  /**
   * Content hashes that unfinished work names in whatever it was given, expanded or has completed,
   * that instance configs name, and that work which ended at `endedSince` or later names.
   */
  namedHashes(endedSince: Date | null): Promise<ReadonlySet<string>>;
}

/** What the queue needs of the journal database; a host under test may wrap it. */
export interface StorePort extends StoreReads {
  /** False while commits fail: new submits must be refused with `JOURNAL_UNAVAILABLE`. */
  readonly available: boolean;
  /**
   * Writes one unit, all or nothing, with whatever else is staged in this turn of the event loop.
   *
   * Units commit in the order they were staged. Resolves after the commit. While commits fail the
   * unit is held, and the promise settles when it has been committed after all.
   *
   * @throws {CjmError} `STORE_REJECTED` if a row of this unit cannot be written: nothing of it was.
   * @throws {CjmError} `JOURNAL_UNAVAILABLE` if the database was closed before the unit committed.
   */
  stage(unit: readonly StoreWrite[]): Promise<StagedResult>;
  /** Calls back on every change of {@link available}; the answer unsubscribes. */
  onAvailability(listener: (available: boolean) => void): () => void;
}
