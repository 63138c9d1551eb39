import { FD, GUEST_CHANNEL, NOBODY, type JailPolicy } from "./policy.ts";

/**
 * Waits at the gate for the guest's command and becomes the guest. The command comes through the
 * gate and not as an argument, which every user of the machine could read; LINE stands for the line
 * ends in it.
 */
const GATE_SCRIPT = [
  'LINE="\n"',
  "echo ready",
  "IFS= read -r command || exit 1",
  'eval "$command"',
].join("\n");

/**
 * First process of a jail. It waits at the gate until the supervisor has set the limits and put
 * the input files in place, runs the guest, ends everything that is left, and keeps the jail's file
 * systems alive until the supervisor has collected what it wants.
 *
 * awk, not the shell, runs the guest: `system()` returns 256 + n for a death by signal n, so that
 * an `exit(137)` and a SIGKILL stay apart (an awk that does not is found by the probe). A shell is the first process all the same, because it
 * reaps the guest's orphans while it waits, and not every awk does. Both have started before the
 * gate opens. The sweep is only for the first process of a PID namespace; anywhere else it would
 * reach every process of the user.
 */
export const INIT_SCRIPT = [
  `GATE='${GATE_SCRIPT}' awk 'BEGIN { status = system(ENVIRON["GATE"]); print "status", status }'`,
  "[ $$ -eq 1 ] && kill -9 -1 2>/dev/null",
  "echo swept",
  "read -r end",
].join("\n");

/** Capabilities the jail's first process keeps under `setuid`, to become the guest and to end it. */
export const INIT_CAPABILITIES = ["CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL"] as const;

/** One word of a shell command line that has to be a single line. */
export function shellQuote(word: string): string {
  if (/^[\w@%+=:,./-]+$/u.test(word)) return word;
  const quoted = word.replaceAll("'", String.raw`'\''`).replaceAll("\n", `'"$LINE"'`);
  return `'${quoted}'`;
}

/** The shell command with which the init script starts the guest. */
export function guestCommand(policy: JailPolicy, hasStdin: boolean): string {
  const words = [...identityWords(policy), ...environmentWords(policy), ...policy.argv];
  const start = words.map(shellQuote).join(" ");
  const own = limitCommand(policy);
  return `${own} && exec ${start} ${redirections(policy.hasChannel === true, hasStdin)}`;
}

/** Set for the guest alone: the jail's first processes must not load what a caller's variable names. */
function environmentWords({ env }: JailPolicy): string[] {
  return ["env", "-i", ...Object.entries(env).map(([name, value]) => `${name}=${value}`)];
}

/** The environment of the jail's first processes. */
export const INIT_ENVIRONMENT = { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" };

function redirections(hasChannel: boolean, hasStdin: boolean): string {
  const stdin = hasStdin ? `<&${FD.stdin}` : "</dev/null";
  const own = `${stdin} >&${FD.stdout} 2>&${FD.stderr}`;
  const close = `${FD.stdout}>&- ${FD.stderr}>&-`;
  if (!hasChannel) return `${own} ${FD.stdin}<&- ${close}`;
  return `${own} ${GUEST_CHANNEL}<&${FD.channel} ${close} ${FD.channel}>&-`;
}

/** POSIX counts file sizes in blocks of this many bytes. */
const FILE_BLOCK = 512;

/** Set by the shell itself, which saves starting a program for it. */
function limitCommand({ limits, identity }: JailPolicy): string {
  // The sum over the tree is the supervisor's; this one ends a process that the supervisor missed.
  const cpuSeconds = Math.ceil(limits.cpuMs / 1_000) + 1;
  // Above the size of the file systems, so that a full disk is ENOSPC and not a signal.
  const fileBlocks = ((limits.diskMb + 1) * 1_048_576) / FILE_BLOCK;
  const common = `ulimit -c 0 && ulimit -t ${cpuSeconds} && ulimit -f ${fileBlocks} && ulimit -n ${MAX_OPEN_FILES}`;
  if (identity !== "userns" && identity !== "setuid") return common;
  // Counted per user namespace. Without one it counts other jails of the same uid too: then it is
  // no exact limit, but what stops a fork bomb that is faster than the supervisor's next look.
  const shared = identity === "setuid" ? SHARED_UID_PROCESSES : 0;
  const processes = limits.pids + INIT_PROCESSES + shared;
  // dash and busybox call it p; to bash p is something else that cannot be set.
  return `${common} && { ulimit -p ${processes} || ulimit -u ${processes}; } 2>/dev/null`;
}

const MAX_OPEN_FILES = 1_024;

/** Processes that other jails of the same uid may have. */
const SHARED_UID_PROCESSES = 512;

/** Processes of the jail that are ours: the init shell and awk. */
export const INIT_PROCESSES = 2;

function identityWords({ identity }: JailPolicy): string[] {
  if (identity !== "setuid") return [];
  const drop = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];
  return ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, ...drop];
}
