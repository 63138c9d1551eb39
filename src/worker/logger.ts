import { inspect } from "node:util";
import { LOG_LEVELS, type LogLevel } from "../protocol/limits.ts";
import { compact } from "../util/compact.ts";
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
  options.sink.send(
    compact({
      type: "log" as const,
      ts: new Date().toISOString(),
      level,
      logger: options.name,
      message,
      exc: error === undefined ? undefined : inspect(error),
      job_id: options.jobId(),
    }),
  );
}

export function parseLogLevel(text: string | undefined): LogLevel {
  const wanted = text?.toLowerCase();
  return LOG_LEVELS.find((level) => level === wanted) ?? "info";
}
