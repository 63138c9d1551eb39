import type { LineBlock } from "../util/lines.ts";

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

/** Log frames of one worker session as they arrived; not parsed, so some may be none. */
export interface FrameLines {
  readonly workerSessionId: string;
  /** Who is named where a line is no frame: the instance. */
  readonly source: string;
  readonly lines: LineBlock;
}

/** What a worker wrote to its stdout or stderr, as it arrived. */
export interface OutputLines {
  readonly workerSessionId: string;
  readonly stream: "stdout" | "stderr";
  readonly lines: LineBlock;
}

/** Columns in their order: of a record, and of a line of output. */
export const COLUMNS = {
  record: ["ts", "workerSessionId", "jobId", "level", "loggerName", "message", "excText"],
  chunk: ["ts", "workerSessionId", "stream", "content"],
} as const;
export type Kind = keyof typeof COLUMNS;
/** Values in the order of {@link COLUMNS}. */
export type Row = readonly (string | null)[];

/** On its way to the thread. */
export type DiagnosticEntry =
  | { readonly kind: Kind; readonly row: Row }
  | ({ readonly kind: "frames"; readonly ts: string } & FrameLines)
  | ({ readonly kind: "output"; readonly ts: string } & OutputLines);

/** What the thread starts with. */
export interface ThreadData {
  readonly path: string;
  readonly secrets: readonly string[];
}

/** Host to thread. */
export type ThreadRequest =
  | { readonly type: "append"; readonly entries: readonly DiagnosticEntry[] }
  /** Values that must not be in anything that is appended from here on. */
  | { readonly type: "learn"; readonly secrets: readonly string[] }
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
