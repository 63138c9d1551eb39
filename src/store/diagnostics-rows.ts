import { notAFrame, readLogFrames } from "../protocol/log-frames.ts";
import { outputTexts } from "../util/lines.ts";
import type { DiagnosticEntry, Row } from "./diagnostics-records.ts";

export interface RowSink {
  readonly record: (row: Row) => void;
  readonly chunk: (row: Row) => void;
}

/** Entries as rows, in the order of {@link COLUMNS}; what a worker wrote is parsed here. */
export function addRows(entries: readonly DiagnosticEntry[], sink: RowSink): void {
  for (const entry of entries) {
    if (entry.kind === "frames") addFrames(entry, sink);
    else if (entry.kind === "output") addOutput(entry, sink);
    else sink[entry.kind](entry.row);
  }
}

function addFrames(
  { workerSessionId, source, ts, lines }: Extract<DiagnosticEntry, { kind: "frames" }>,
  sink: RowSink,
): void {
  for (const frame of readLogFrames(lines.bytes, lines.count)) {
    if (typeof frame === "string") {
      const message = `${source}: ${notAFrame(frame)}`;
      sink.record([ts, workerSessionId, null, "warning", "cjm.host", message, null]);
    } else {
      const { jobId, level, logger, message, exc } = frame;
      sink.record([frame.ts, workerSessionId, jobId, level, logger, message, exc]);
    }
  }
}

function addOutput(
  { workerSessionId, stream, ts, lines }: Extract<DiagnosticEntry, { kind: "output" }>,
  sink: RowSink,
): void {
  for (const text of outputTexts(lines.bytes)) sink.chunk([ts, workerSessionId, stream, text]);
}

/** Rows that an entry may become at most. */
export function countOf(entry: DiagnosticEntry): number {
  return "lines" in entry ? entry.lines.count : 1;
}

/** Characters, or bytes of what is not decoded yet, that an entry holds. */
export function sizeOf(entry: DiagnosticEntry): number {
  if ("lines" in entry) return entry.lines.bytes.length;
  let size = 0;
  for (const value of entry.row) size += value?.length ?? 0;
  return size;
}
