import { inspect } from "node:util";
import { LOG_LEVELS, type LogLevel } from "../protocol/limits.ts";
import type { WorkerLogger } from "./capability.ts";
import type { FrameSink } from "./control-stream.ts";

export interface LoggerOptions {
  readonly sink: FrameSink;
  readonly name: string;
  /** Records below it are not sent. */
  readonly level: LogLevel;
  /** The job in whose call a record is written. */
  readonly jobId: () => string | undefined;
}

export function createLogger(options: LoggerOptions): WorkerLogger {
  const write =
    (level: LogLevel) =>
    (message: string, error?: unknown): void => {
      log(options, level, message, error);
    };
  return {
    debug: write("debug"),
    info: write("info"),
    warning: write("warning"),
    error: write("error"),
  };
}

/** Writes one record; `critical` is the SDK's own, for what ends the worker. */
export function log(
  options: LoggerOptions,
  level: LogLevel,
  message: string,
  error?: unknown,
): void {
  if (LOG_LEVELS.indexOf(level) < LOG_LEVELS.indexOf(options.level)) return;
  const jobId = options.jobId();
  options.sink.send({
    type: "log",
    ts: timestamp(),
    level,
    logger: options.name,
    message,
    ...(error !== undefined && { exc: inspect(error) }),
    ...(jobId !== undefined && { job_id: jobId }),
  });
}

let lastMs = 0;
let lastTimestamp = "";

/** Now; the text is made once in a millisecond, for it costs as much as the rest of a record. */
function timestamp(): string {
  const now = Date.now();
  if (now !== lastMs) {
    lastMs = now;
    lastTimestamp = new Date(now).toISOString();
  }
  return lastTimestamp;
}

export function parseLogLevel(text: string | undefined): LogLevel {
  const wanted = text?.toLowerCase();
  return LOG_LEVELS.find((level) => level === wanted) ?? "info";
}
