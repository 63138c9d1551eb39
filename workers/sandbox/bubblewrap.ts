import type { Backend } from "./backend.ts";
import { INIT_CAPABILITIES, INIT_ENVIRONMENT, INIT_SCRIPT } from "./jail-init.ts";
import { FD, NOBODY, WORK_FOLDER, parentFolders, type JailPolicy, type Mount } from "./policy.ts";

/** The options of bubblewrap for a policy; they go to it through a descriptor, not its argv. */
export function bubblewrapOptions(policy: JailPolicy): string[] {
  return [
    NAMESPACES,
    identityOptions(policy),
    Object.entries(INIT_ENVIRONMENT).flatMap(([name, value]) => ["--setenv", name, value]),
    mountOptions(policy),
    ["--seccomp", String(FD.seccomp), "--chdir", WORK_FOLDER],
  ].flat();
}

const NAMESPACES = [
  "--unshare-pid",
  "--unshare-net",
  "--unshare-ipc",
  "--unshare-uts",
  "--unshare-cgroup-try",
  "--die-with-parent",
  "--new-session",
  "--as-pid-1",
  "--hostname",
  "sandbox",
  "--clearenv",
];

/** Arguments for `bwrap` itself. */
const ARGUMENTS = ["--args", String(FD.args), "--", "/bin/sh", "-c", INIT_SCRIPT, "init"];

function identityOptions({ identity }: JailPolicy): string[] {
  if (identity === "userns") {
    return ["--unshare-user", "--uid", String(NOBODY), "--gid", String(NOBODY)];
  }
  const kept = INIT_CAPABILITIES.flatMap((capability) => ["--cap-add", capability]);
  return ["--cap-drop", "ALL", ...kept];
}

function mountOptions({ mounts, limits }: JailPolicy): string[] {
  const size = String(limits.diskMb * 1_048_576);
  const made = new Set<string>(["/dev", "/proc"]);
  const options = ["--proc", "/proc", "--dev", "/dev"];
  for (const mount of mounts) {
    options.push(...folderOptions(mount.target, made), ...oneMount(mount, size));
  }
  return [...options, "--remount-ro", "/dev", "--remount-ro", "/"];
}

/** Parents are made by name, because bubblewrap's own are closed to other users. */
function folderOptions(target: string, made: Set<string>): string[] {
  const missing = parentFolders(target).filter((folder) => !made.has(folder));
  for (const folder of missing) made.add(folder);
  return missing.flatMap((folder) => ["--perms", "0755", "--dir", folder]);
}

function oneMount(mount: Mount, size: string): string[] {
  if (mount.kind === "tmpfs") {
    return ["--perms", mount.mode, "--size", size, "--tmpfs", mount.target];
  }
  return [MOUNT_OPTION[mount.kind], mount.source, mount.target];
}

const MOUNT_OPTION = { ro: "--ro-bind", rw: "--bind", symlink: "--symlink" } as const;

/** The backend for a `bwrap` that has been found. */
export function bubblewrapBackend(file: string, version: string): Backend {
  return {
    name: "bubblewrap",
    version,
    wantsFilter: true,
    hasPidNamespace: true,
    notEnforced: [],
    launch: (policy) => ({
      file,
      args: ARGUMENTS,
      optionFile: bubblewrapOptions(policy).join("\0"),
    }),
  };
}
