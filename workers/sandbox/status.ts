/** How a run ended; decided by what was observed, never by the exit code alone. */
export const STATUSES = [
  "ok",
  "nonzero",
  "signal",
  "wall_timeout",
  "cpu_timeout",
  "oom",
  "pids",
  "output_limit",
  "disk_limit",
  "seccomp",
  "setup_error",
] as const;
export type Status = (typeof STATUSES)[number];

/** A limit that was exceeded. */
export type LimitStatus = Extract<
  Status,
  "wall_timeout" | "cpu_timeout" | "oom" | "pids" | "output_limit" | "disk_limit"
>;

/** What the supervisor saw of one run. */
export interface Evidence {
  /** The limit that was exceeded first, if any. */
  readonly firstLimit: LimitStatus | undefined;
  /** What the jail's first process learned from the kernel about the guest's end. */
  readonly end: GuestEnd | undefined;
  /** Why the guest never started. */
  readonly setupError?: string;
}

export interface GuestEnd {
  readonly exitCode: number | null;
  readonly signal: number | null;
}

const SIGXCPU = 24;
const SIGXFSZ = 25;
const SIGSYS = 31;

/**
 * The status that the evidence supports.
 *
 * A limit's signal counts as evidence because the jail's filter refuses a guest that sends it.
 */
export function decideStatus({ firstLimit, end, setupError }: Evidence): Status {
  if (setupError !== undefined) return "setup_error";
  if (firstLimit !== undefined) return firstLimit;
  if (end === undefined) return "signal";
  if (end.signal === SIGSYS) return "seccomp";
  if (end.signal === SIGXFSZ) return "disk_limit";
  if (end.signal === SIGXCPU) return "cpu_timeout";
  if (end.signal !== null) return "signal";
  return end.exitCode === 0 ? "ok" : "nonzero";
}

/** Reads awk's form of a wait status: an exit code, or 256 + signal, plus 256 for a core dump. */
export function parseGuestEnd(status: number): GuestEnd {
  if (status < 256) return { exitCode: status, signal: null };
  return { exitCode: null, signal: status % 256 };
}
