/** What the host should do about a failure; decides retries, never the message. */
export const ERROR_CATEGORIES = ["user_input", "transient", "resource", "fatal"] as const;
export type ErrorCategory = (typeof ERROR_CATEGORIES)[number];

/**
 * Stable, machine-readable identifiers and the category each one has.
 * Adding one is a minor release; renaming one is a major.
 */
export const ERROR_CODES = {
  ACTION_UNKNOWN: "user_input",
  ADAPTER_INCOMPATIBLE: "user_input",
  CAPABILITY_CANCELLED: "transient",
  CAPABILITY_DISABLED: "user_input",
  CAPABILITY_ERROR: "fatal",
  CAPABILITY_INPUT: "user_input",
  CAPABILITY_NOT_INSTALLED: "user_input",
  CAPABILITY_NOT_LOADED: "fatal",
  CAPABILITY_OUTPUT: "fatal",
  CAPABILITY_RESOURCE: "resource",
  CAPABILITY_TIMEOUT: "transient",
  CAPABILITY_TRANSIENT: "transient",
  CAPABILITY_UNKNOWN: "user_input",
  COMPOSITION_BINDING: "user_input",
  COMPOSITION_INVALID: "user_input",
  CONFIG_INVALID: "user_input",
  DATA_DIR_LOCKED: "user_input",
  DATABASE_CORRUPT: "fatal",
  DATABASE_NEWER: "user_input",
  DOOR_UNAVAILABLE: "transient",
  FILE_INVALID: "user_input",
  HOST_STOPPING: "transient",
  INSTALL_FAILED: "fatal",
  INSTANCE_INVALID: "user_input",
  ISOLATION_UNAVAILABLE: "fatal",
  JOB_UNKNOWN: "user_input",
  JOURNAL_UNAVAILABLE: "transient",
  MANIFEST_INVALID: "user_input",
  METHOD_NOT_SUPPORTED: "user_input",
  OUTPUT_OUTSIDE_FOLDER: "fatal",
  PREFETCH_STALLED: "transient",
  QUEUE_FULL: "transient",
  RESPONSE_INVALID: "fatal",
  RESPONSE_TOO_LARGE: "fatal",
  REQUEST_TOO_LARGE: "user_input",
  RESOURCE_LIMIT_EXCEEDED: "resource",
  SECRET_INVALID: "user_input",
  SECRET_MISSING: "user_input",
  SETUP_REQUIRED: "user_input",
  STORE_REJECTED: "fatal",
  VRAM_NEVER_FITS: "resource",
  WORKER_EXITED: "transient",
  WORKER_HANDSHAKE: "fatal",
  WORKER_OOM: "resource",
  WORKER_START_TIMEOUT: "transient",
} as const satisfies Readonly<Record<string, ErrorCategory>>;

export type ErrorCode = keyof typeof ERROR_CODES;

export function isErrorCode(value: string): value is ErrorCode {
  return Object.hasOwn(ERROR_CODES, value);
}
