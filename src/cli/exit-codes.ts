import type { ErrorCode } from "../errors/index.ts";

/** What the shell sees; documented in `docs/cli.md`. */
export const EXIT = {
  ok: 0,
  /** The work itself failed: a job, a composition, an installation. */
  failed: 1,
  /** What was asked for is wrong: arguments, files, names. */
  usage: 2,
  /** The machine or the data directory is not in a state to do it. */
  environment: 3,
  interrupted: 130,
  /** Whoever read the output is gone, as in `cjm-ctl logs | head`. */
  noReader: 141,
} as const;

const USAGE: ReadonlySet<ErrorCode> = new Set([
  "ACTION_UNKNOWN",
  "CAPABILITY_INPUT",
  "CAPABILITY_UNKNOWN",
  "COMPOSITION_INVALID",
  "CONFIG_INVALID",
  "FILE_INVALID",
  "INSTANCE_INVALID",
  "JOB_UNKNOWN",
  "MANIFEST_INVALID",
  "SECRET_INVALID",
]);

const ENVIRONMENT: ReadonlySet<ErrorCode> = new Set([
  "CAPABILITY_NOT_INSTALLED",
  "DATA_DIR_LOCKED",
  "DATABASE_CORRUPT",
  "DATABASE_NEWER",
  "DOOR_UNAVAILABLE",
  "ISOLATION_UNAVAILABLE",
  "JOURNAL_UNAVAILABLE",
  "SECRET_MISSING",
  "SETUP_REQUIRED",
  "STORE_REJECTED",
]);

export function exitCodeOf(code: ErrorCode): number {
  if (USAGE.has(code)) return EXIT.usage;
  return ENVIRONMENT.has(code) ? EXIT.environment : EXIT.failed;
}
