/** Limits of one run; every one of them holds for the whole tree of processes. */
export interface Limits {
  readonly wallMs: number;
  readonly cpuMs: number;
  readonly memoryMb: number;
  readonly pids: number;
  /** Bytes kept of stdout and of stderr, each. */
  readonly outputBytes: number;
  /** Size of each writable file system of the jail. */
  readonly diskMb: number;
}

export type Mount =
  | { readonly kind: "ro" | "rw"; readonly source: string; readonly target: string }
  | { readonly kind: "tmpfs"; readonly target: string; readonly mode: string }
  | { readonly kind: "symlink"; readonly source: string; readonly target: string };

/**
 * Who the guest is: `setuid` drops from real root to nobody, `userns` maps the supervisor's own
 * user to nobody, `same` is the supervisor's user unchanged.
 */
export type Identity = "setuid" | "userns" | "same";

/** Where the guest starts and may write. */
export const WORK_FOLDER = "/work";
/** Where input folders appear, read-only. */
export const INPUT_FOLDER = "/input";
/** The uid and gid the guest sees; under `setuid` also the ones it really has. */
export const NOBODY = 65_534;

/** Writable file systems of every jail; each holds `diskMb`. */
export const TMPFS_FOLDERS = [WORK_FOLDER, "/tmp", "/var/tmp", "/dev/shm"] as const;

/** Everything a backend must establish, named once for all of them. */
export interface JailPolicy {
  readonly mounts: readonly Mount[];
  readonly env: Readonly<Record<string, string>>;
  readonly limits: Limits;
  readonly identity: Identity;
  /** A folder of this machine that is the guest's working folder; without it that one is private. */
  readonly workSource?: string | undefined;
  /** True where the guest gets a descriptor that leads to the supervisor. */
  readonly hasChannel?: boolean;
  readonly argv: readonly string[];
}

/** File descriptors every jail is started with, by what they are for. */
export const FD = {
  gate: 0,
  report: 1,
  log: 2,
  stdin: 3,
  stdout: 4,
  stderr: 5,
  args: 6,
  seccomp: 7,
  channel: 8,
} as const;

/** The guest's descriptor that leads to the supervisor, for harnesses. */
export const GUEST_CHANNEL = 3;

export function parentFolders(path: string): string[] {
  const segments = path.split("/").slice(1, -1);
  return segments.map((_, index) => `/${segments.slice(0, index + 1).join("/")}`);
}
