import type { WorkerFrameInput } from "../protocol/index.ts";
import { FRAME_MAX_BYTES } from "../protocol/limits.ts";

/** One frame as its line of at most {@link FRAME_MAX_BYTES}; log text is cut to fit and says so. */
export function frameLine(frame: WorkerFrameInput): string {
  const line = `${JSON.stringify(frame)}\n`;
  const size = Buffer.byteLength(line);
  if (size <= FRAME_MAX_BYTES) return line;
  if (frame.type === "log") return cutLog(frame);
  if (frame.type === "progress" || frame.type === "warning") {
    return `${JSON.stringify({ ...frame, message: cut(frame.message ?? "", 4096) })}\n`;
  }
  throw new TypeError(
    `A ${frame.type} frame of ${size} bytes does not fit into ${FRAME_MAX_BYTES}: it takes references and hashes, never content`,
  );
}

type LogFrame = Extract<WorkerFrameInput, { type: "log" }>;

/** Escaping can make text up to six times longer, so the budget shrinks until the line fits. */
function cutLog(frame: LogFrame): string {
  for (let budget = FRAME_MAX_BYTES / 2; ; budget /= 2) {
    const message = cut(frame.message, budget);
    const exc = typeof frame.exc === "string" ? cut(frame.exc, budget / 2) : frame.exc;
    const line = `${JSON.stringify({ ...frame, logger: cut(frame.logger ?? "", 256), message, exc })}\n`;
    if (Buffer.byteLength(line) <= FRAME_MAX_BYTES) return line;
  }
}

function cut(text: string, budget: number): string {
  if (text.length <= budget) return text;
  // A lone half of a surrogate pair at the end would not survive UTF-8.
  return `${text.slice(0, Math.floor(budget)).toWellFormed()} [cut: ${text.length} characters]`;
}
