/** Version of the worker protocol; a worker that reports another one is refused. */
export const PROTOCOL_VERSION = 1;

/** Limits of a body in either direction; larger content travels as files. */
export const BODY_LIMITS = { bytes: 4 * 1024 * 1024, depth: 64, values: 200_000 } as const;

/** Longest control frame in bytes, its newline included. */
export const FRAME_MAX_BYTES = 64 * 1024;

export const LOG_LEVELS = ["debug", "info", "warning", "error", "critical"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];
