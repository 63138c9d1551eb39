import { splitLines } from "../util/lines.ts";
import { isRecord } from "../util/record.ts";

/** A log frame of {@link workerFrameSchema}, with what may be absent filled in. */
export interface LogFrame {
  readonly ts: string;
  readonly level: string;
  readonly logger: string;
  readonly message: string;
  readonly exc: string | null;
  readonly jobId: string | null;
}

/** How a log frame begins that an SDK writes; one that begins otherwise is recognised by parsing it. */
const PREFIX = Buffer.from('{"type":"log",');

export function beginsAsLogFrame(bytes: Uint8Array, start: number): boolean {
  for (let index = 0; index < PREFIX.length; index += 1) {
    if (bytes[start + index] !== PREFIX[index]) return false;
  }
  return true;
}

/** What is noted of a line that is no frame. */
export function notAFrame(line: string): string {
  return `not a control frame: ${line.slice(0, 200)}`;
}

/**
 * The log frames of these lines; a line that is none comes back as its text.
 *
 * Reads what the schema reads, and is written out by hand because it runs once for each record that
 * a tool writes.
 */
export function readLogFrames(bytes: Uint8Array, count: number): (LogFrame | string)[] {
  const all = parseAll(bytes);
  if (all?.length === count) {
    const frames = all.map(logFrameOf);
    if (frames.every((frame) => frame !== undefined)) return frames;
  }
  return Array.from(splitLines(bytes), (line) => {
    const text = Buffer.from(line.buffer, line.byteOffset, line.length).toString("utf8");
    return logFrameOf(parse(text)) ?? text;
  });
}

/** All lines as one array: a call of the parser for each would cost as much as the parsing. */
function parseAll(bytes: Uint8Array): readonly unknown[] | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  const members = text.endsWith("\n") ? text.slice(0, -1) : text;
  const parsed = parse(`[${members.replaceAll("\n", ",")}]`);
  return Array.isArray(parsed) ? parsed : undefined;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function logFrameOf(value: unknown): LogFrame | undefined {
  if (!isRecord(value) || value["type"] !== "log") return undefined;
  const { ts, level, logger = "", message, exc = null, job_id: jobId = null } = value;
  if (typeof ts !== "string" || typeof level !== "string") return undefined;
  if (typeof logger !== "string" || typeof message !== "string") return undefined;
  if (!isTextOrNull(exc) || !isTextOrNull(jobId)) return undefined;
  return { ts, level, logger, message, exc, jobId };
}

function isTextOrNull(value: unknown): value is string | null {
  return value === null || typeof value === "string";
}
