/** One structured log record of a worker, stamped with the job it belongs to. */
export interface DiagnosticRecord {
  /** ISO 8601 in UTC. @default the time of the append */
  readonly ts?: string | undefined;
  readonly workerSessionId?: string | null | undefined;
  /** The call that was running; null outside one. */
  readonly jobId?: string | null | undefined;
  /** @default "info" */
  readonly level?: string | undefined;
  readonly loggerName?: string | undefined;
  readonly message: string;
  readonly excText?: string | null | undefined;
}

/** One line that a worker wrote to its stdout or stderr. */
export interface StreamChunk {
  /** Capture time, ISO 8601 in UTC. @default the time of the append */
  readonly ts?: string | undefined;
  readonly workerSessionId?: string | null | undefined;
  readonly stream: "stdout" | "stderr";
  readonly content: string;
}

export interface StoredRecord extends Required<DiagnosticRecord> {
  readonly seq: number;
  readonly ts: string;
  readonly workerSessionId: string | null;
  readonly jobId: string | null;
  readonly level: string;
  readonly loggerName: string;
  readonly excText: string | null;
}

export interface StoredChunk extends Omit<Required<StreamChunk>, "stream"> {
  readonly seq: number;
  readonly ts: string;
  readonly workerSessionId: string | null;
  readonly stream: string;
}

/** Records of what the machine held while jobs ran; seen only by who asks for this logger. */
export const RESOURCES_LOGGER = "cjm.resources";

export interface RecordFilter {
  readonly jobId?: string | undefined;
  /** @default every logger but {@link RESOURCES_LOGGER} */
  readonly loggerName?: string | undefined;
  /** ISO 8601 in UTC, inclusive. */
  readonly sinceTs?: string | undefined;
  readonly untilTs?: string | undefined;
  readonly workerSessionId?: string | undefined;
  readonly level?: string | undefined;
  /** Tail cursor: rows with a greater `seq`. */
  readonly afterSeq?: number | undefined;
  readonly limit?: number | undefined;
  /** Newest first. @default false */
  readonly descending?: boolean | undefined;
}
export type ChunkFilter = Pick<
  RecordFilter,
  "workerSessionId" | "afterSeq" | "limit" | "descending"
>;

/** What to keep; an absent bound does not bound. */
export interface Retention {
  readonly maxAgeDays?: number | undefined;
  /** Size of the database in MiB; the oldest rows of both tables go first. */
  readonly maxTotalMb?: number | undefined;
}
export interface RetentionResult {
  readonly recordsDeleted: number;
  readonly chunksDeleted: number;
}

/** A row on its way to the thread: columns in the order of the table. */
export type DiagnosticEntry =
  | {
      readonly kind: "record";
      readonly row: readonly [
        ts: string,
        workerSessionId: string | null,
        jobId: string | null,
        level: string,
        loggerName: string,
        message: string,
        excText: string | null,
      ];
    }
  | {
      readonly kind: "chunk";
      readonly row: readonly [
        ts: string,
        workerSessionId: string | null,
        stream: string,
        content: string,
      ];
    };

/** Host to thread. */
export type ThreadRequest =
  | { readonly type: "append"; readonly entries: readonly DiagnosticEntry[] }
  | {
      readonly type: "retain";
      readonly id: number;
      readonly cutoff: string | null;
      readonly maxBytes: number | null;
    }
  | { readonly type: "close" };

/** Thread to host. */
export type ThreadReply =
  | { readonly type: "ready"; readonly replaced: string | null }
  | { readonly type: "written"; readonly lost: number; readonly reason: string | null }
  | {
      readonly type: "retained";
      readonly id: number;
      readonly result: RetentionResult | null;
      readonly reason: string | null;
    };
