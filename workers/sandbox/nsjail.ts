import type { Backend } from "./backend.ts";
import { INIT_CAPABILITIES, INIT_ENVIRONMENT, INIT_SCRIPT } from "./jail-init.ts";
import { kafelPolicy } from "./kafel.ts";
import { FD, NOBODY, WORK_FOLDER, type JailPolicy, type Mount } from "./policy.ts";
import type { Architecture } from "./seccomp.ts";
import { SYSCALL_RULES } from "./syscall-policy.ts";

/** What of the host's /dev a guest gets; bubblewrap makes the same set by itself. */
const DEVICES = ["null", "zero", "full", "random", "urandom"];
const DEVICE_LINKS = { fd: "/proc/self/fd", stdin: "fd/0", stdout: "fd/1", stderr: "fd/2" };

/**
 * The policy as nsjail's configuration (config.proto, text form).
 *
 * nsjail's own clock, limits and cgroups stay off: its clock counts whole seconds, and limits are
 * set and read back by the supervisor in the same way for every backend.
 */
export function nsjailConfig(policy: JailPolicy, architecture: Architecture): string {
  const passed: number[] = [FD.stdin, FD.stdout, FD.stderr];
  if (policy.hasChannel === true) passed.push(FD.channel);
  const init = ["-c", INIT_SCRIPT, "init"];
  return [
    'mode: ONCE hostname: "sandbox" time_limit: 0 disable_rl: true nice_level: 0',
    "iface_no_lo: false keep_env: false mount_proc: true clone_newtime: false",
    `log_level: WARNING log_fd: ${FD.log} cwd: ${quote(WORK_FOLDER)}`,
    ...passed.map((fd) => `pass_fd: ${fd}`),
    ...identityLines(policy),
    ...Object.entries(INIT_ENVIRONMENT).map(
      ([name, value]) => `envar: ${quote(`${name}=${value}`)}`,
    ),
    ...deviceLines(),
    ...policy.mounts.map((mount) => mountLine(mount, policy.limits.diskMb)),
    seccompLine(architecture),
    `exec_bin { path: "/bin/sh" ${init.map((word) => `arg: ${quote(word)}`).join(" ")} }`,
  ].join("\n");
}

const seccompLines = new Map<Architecture, string>();

/** Long and always the same, so it is written once. */
function seccompLine(architecture: Architecture): string {
  const known = seccompLines.get(architecture);
  if (known !== undefined) return known;
  const line = `seccomp_string: ${quote(kafelPolicy(SYSCALL_RULES, architecture))}`;
  seccompLines.set(architecture, line);
  return line;
}

function identityLines({ identity }: JailPolicy): string[] {
  if (identity === "userns") {
    const map = (outside: number): string =>
      `{ inside_id: "${NOBODY}" outside_id: "${outside}" count: 1 }`;
    return [
      `uidmap ${map(process.geteuid?.() ?? NOBODY)}`,
      `gidmap ${map(process.getegid?.() ?? NOBODY)}`,
    ];
  }
  return [
    "clone_newuser: false",
    'uidmap { inside_id: "0" } gidmap { inside_id: "0" }',
    ...INIT_CAPABILITIES.map((capability) => `cap: "${capability}"`),
  ];
}

function deviceLines(): string[] {
  return [
    'mount { dst: "/dev" fstype: "tmpfs" options: "mode=0755,size=65536" rw: false }',
    ...DEVICES.map(
      (name) => `mount { src: "/dev/${name}" dst: "/dev/${name}" is_bind: true rw: true }`,
    ),
    ...Object.entries(DEVICE_LINKS).map(([name, target]) =>
      mountLine({ kind: "symlink", source: target, target: `/dev/${name}` }, 0),
    ),
  ];
}

function mountLine(mount: Mount, diskMb: number): string {
  const dst = `dst: ${quote(mount.target)}`;
  if (mount.kind === "tmpfs") {
    const options = `size=${diskMb * 1_048_576},mode=${mount.mode}`;
    return `mount { ${dst} fstype: "tmpfs" options: "${options}" rw: true nosuid: true nodev: true }`;
  }
  const src = `src: ${quote(mount.source)}`;
  if (mount.kind === "symlink") return `mount { ${src} ${dst} is_symlink: true }`;
  const isWritable = mount.kind === "rw";
  return `mount { ${src} ${dst} is_bind: true rw: ${isWritable} nosuid: true nodev: true }`;
}

/** A string of protobuf's text form: bytes outside printable ASCII as octal. */
function quote(text: string): string {
  const escaped = Array.from(Buffer.from(text), (byte) => {
    const character = String.fromCodePoint(byte);
    if (character === '"' || character === "\\") return `\\${character}`;
    return byte >= 0x20 && byte < 0x7f ? character : `\\${byte.toString(8).padStart(3, "0")}`;
  });
  return `"${escaped.join("")}"`;
}

/** The backend for an `nsjail` that has been found. */
export function nsjailBackend(file: string, version: string, architecture: Architecture): Backend {
  return {
    name: "nsjail",
    version,
    wantsFilter: false,
    hasPidNamespace: true,
    notEnforced: [],
    launch: (policy) => ({
      // Unlike bubblewrap it does not end with its parent by itself.
      file: "setpriv",
      args: ["--pdeathsig", "KILL", "--", file, "--config", `/proc/self/fd/${FD.args}`],
      optionFile: nsjailConfig(policy, architecture),
    }),
  };
}
