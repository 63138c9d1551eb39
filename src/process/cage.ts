import { execa } from "execa";
import type { Cage } from "../protocol/index.ts";
import { cgroupPlace } from "./cgroup.ts";

/**
 * Process 1 of a worker's PID namespace: starts the worker, reaps orphans, survives a SIGTERM that
 * is meant for the worker, and ends with the worker's exit code (128 + signal number when killed).
 */
const INIT_SCRIPT =
  'trap : TERM INT HUP; "$@" & while :; do wait $!; r=$?; kill -0 $! 2>/dev/null || exit $r; done';

/** A parent that died before its death could be waited for is never told of: `$0` is its pid. */
const UNLESS_ORPHANED = '[ "$PPID" -eq "$0" ] && exec "$@"';

/**
 * The command that runs `command` in a cage, for this process to start.
 *
 * `pidns`: a PID namespace that the kernel empties when its first process or the host's main
 * thread dies. `group`: only the process group that the spawn makes. (A control group is made for each
 * worker: {@link WorkerCgroup}.)
 */
export function cagedCommand(cage: Cage, command: readonly string[]): readonly string[] {
  if (cage !== "pidns") return command;
  const asUser = process.getuid?.() === 0 ? [] : ["--user", "--map-current-user"];
  const die = ["setpriv", "--pdeathsig", "KILL", "--"];
  const unlessOrphaned = ["sh", "-c", UNLESS_ORPHANED, String(process.pid)];
  const unshare = ["unshare", ...asUser, "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
  return [...die, ...unlessOrphaned, ...unshare, "sh", "-c", INIT_SCRIPT, "init", ...command];
}

export interface CageProbe {
  readonly cage: Cage;
  /** Why the strongest cage is not to be had; absent when it is. */
  readonly reason?: string;
}

/** Finds the strongest cage this machine allows by running `true` in it. */
export async function probeCage(): Promise<CageProbe> {
  if (process.platform !== "linux") {
    return { cage: "group", reason: `PID namespaces are Linux only; this is ${process.platform}` };
  }
  const [file = "setpriv", ...args] = cagedCommand("pidns", ["true"]);
  const result = await execa(file, args, { reject: false, stdin: "ignore", timeout: 10_000 });
  if (!result.failed) return { cage: "pidns" };
  const detail = result.stderr.trim() || result.shortMessage;
  const why = `setpriv and unshare cannot make a PID namespace: ${detail}`;
  const search = await cgroupPlace();
  if ("place" in search) return { cage: "cgroup", reason: why };
  return { cage: "group", reason: `${why}; no control group either: ${search.reason}` };
}
