import { constants } from "node:fs";
import { access, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { ResolvedConfig } from "../../config/index.ts";
import { findPython, probeCage } from "../../provision/index.ts";
import { type Examination, failed, type Finding, ok, tryProgram, warning } from "./check.ts";

const IS_LINUX = process.platform === "linux";

/** The machine itself: interpreters, jails, cages, cgroups. */
export function machineExaminations(config: ResolvedConfig): readonly Examination[] {
  const everywhere: Examination[] = [
    { name: "node", look: () => ok(`${process.version} at ${process.execPath}`) },
    { name: "npm", look: lookAtNpm },
    { name: "python", look: lookAtPython },
    { name: "cage", look: () => lookAtCage(config) },
  ];
  if (!IS_LINUX) return everywhere;
  return [
    ...everywhere,
    { name: "user namespaces", look: lookAtUserNamespaces },
    { name: "jail", look: lookAtJails },
    { name: "cgroups", look: lookAtCgroups },
  ];
}

async function lookAtNpm(): Promise<Finding> {
  const found = await tryProgram("npm", ["--version"]);
  if ("output" in found) return ok(found.output);
  return failed(found.reason, "put npm on PATH; TypeScript capabilities are installed with it");
}

/** With pip at hand none is unpacked into an environment. */
const CAN_MAKE_ENVIRONMENTS = `import venv
try:
    import pip
except ImportError:
    import ensurepip`;

async function lookAtPython(): Promise<Finding> {
  const python = await findPython(undefined, process.env).catch(() => undefined);
  if (python === undefined) {
    return failed(
      "there is no Python 3.9 or newer",
      "install one, such as: sudo apt-get install python3 python3-venv; Python capabilities need it",
    );
  }
  const { executable, version } = python;
  const found = await tryProgram(executable, ["-c", CAN_MAKE_ENVIRONMENTS]);
  if ("output" in found) return ok(`${version} at ${executable}`);
  return warning(
    `${version} at ${executable} cannot make virtual environments`,
    "install its venv package, such as: sudo apt-get install python3-venv",
  );
}

async function lookAtCage({ substrate }: ResolvedConfig): Promise<Finding> {
  if (substrate.cage === "group") {
    return warning(
      "process groups only, as substrate.cage says",
      "remove substrate.cage from cjm.yaml",
    );
  }
  const { cage, reason } = await probeCage();
  if (reason === undefined) return ok(`workers and all they start die with the host (${cage})`);
  return warning(
    `${cage === "cgroup" ? "control groups" : "process groups only"}: ${reason}`,
    IS_LINUX
      ? "install util-linux and allow user namespaces (see below); until then what outlives a killed host is ended when the next one starts"
      : "nothing to do here: PID namespaces are Linux only",
  );
}

/** A kernel setting that keeps ordinary users from making user namespaces, and how to lift it. */
const REFUSALS = [
  {
    path: "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    refuses: (value: number) => value !== 0,
    why: "AppArmor restricts them (the default of Ubuntu since 23.10)",
    fix: "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, and put that line into /etc/sysctl.d/60-userns.conf to keep it; or give bwrap an AppArmor profile with `userns,`",
  },
  {
    path: "/proc/sys/kernel/unprivileged_userns_clone",
    refuses: (value: number) => value === 0,
    why: "kernel.unprivileged_userns_clone is 0",
    fix: "sudo sysctl -w kernel.unprivileged_userns_clone=1",
  },
  {
    path: "/proc/sys/user/max_user_namespaces",
    refuses: (value: number) => value === 0,
    why: "user.max_user_namespaces is 0",
    fix: "sudo sysctl -w user.max_user_namespaces=15000",
  },
] as const;

async function lookAtUserNamespaces(): Promise<Finding> {
  const tried = await tryProgram("unshare", ["--user", "--map-root-user", "true"]);
  if ("output" in tried) return ok("allowed");
  const isRoot = process.getuid?.() === 0;
  for (const { path, refuses, why, fix } of REFUSALS) {
    const text = await readFile(path, "utf8").catch(() => "");
    if (text === "" || !refuses(Number(text))) continue;
    // Root makes jails and cages without one.
    return isRoot ? ok(`refused: ${why}; not needed as root`) : failed(`refused: ${why}`, fix);
  }
  if (isRoot) return ok(`refused: ${tried.reason}; not needed as root`);
  return failed(
    `refused: ${tried.reason}`,
    "in a container, allow the unshare and clone system calls (its seccomp profile refuses them)",
  );
}

async function lookAtJails(): Promise<Finding> {
  const mounts = ["--ro-bind", "/", "/", "--proc", "/proc"];
  const bubblewrap = await tryProgram("bwrap", [...mounts, "--unshare-all", "--", "true"]);
  const nsjail = await tryProgram("nsjail", ["-Mo", "--quiet", "--chroot", "/", "--", "/bin/true"]);
  const usable = [
    ...("output" in bubblewrap ? ["bubblewrap"] : []),
    ...("output" in nsjail ? ["nsjail"] : []),
  ];
  if (usable.length > 0) return ok(`${usable.join(" and ")} can make one`);
  const reasons = [bubblewrap, nsjail].flatMap((one) => ("reason" in one ? [one.reason] : []));
  return warning(
    `the sandbox refuses untrusted code: ${reasons.join("; ")}`,
    "install bubblewrap, such as: sudo apt-get install bubblewrap; and see user namespaces",
  );
}

async function lookAtCgroups(): Promise<Finding> {
  const needed = ["memory", "pids"];
  const controllers = await readFile("/sys/fs/cgroup/cgroup.controllers", "utf8").catch(() => "");
  if (controllers === "") return lookAtFirstCgroups(needed);
  const folder = join("/sys/fs/cgroup", await ownCgroup("0:"));
  const missing = needed.filter((name) => !controllers.split(/\s+/u).includes(name));
  const isOurs = await isWritable(folder);
  if (missing.length === 0 && isOurs)
    return ok(`version 2 with ${needed.join(" and ")}, ours to divide`);
  const why = isOurs ? `without ${missing.join(", ")}` : `${folder} is not ours to divide`;
  return warning(
    `${why}: jails fall back to rlimits for memory and processes`,
    "start the host with: systemd-run --user --scope -p Delegate=yes <command>",
  );
}

/** Version 1: a hierarchy for each controller. */
async function lookAtFirstCgroups(needed: readonly string[]): Promise<Finding> {
  const ours = await Promise.all(
    needed.map(async (name) => {
      const mount = join("/sys/fs/cgroup", name);
      // In a container the path may be the machine's; the mount then shows our own at its top.
      const own = join(mount, await ownCgroup(name));
      return (await isWritable(own)) || (await isWritable(mount));
    }),
  );
  if (ours.every(Boolean)) return ok(`version 1 with ${needed.join(" and ")}, ours to divide`);
  return warning(
    "version 2 is not mounted, and version 1 is not ours to divide: jails fall back to rlimits for memory and processes",
    "boot with systemd.unified_cgroup_hierarchy=1",
  );
}

/** Path of our own cgroup in the hierarchy of a controller; `0:` is version 2. */
async function ownCgroup(controller: string): Promise<string> {
  const lines = (await readFile("/proc/self/cgroup", "utf8")).split("\n");
  const line = lines.find(
    (text) =>
      text.startsWith(`${controller}:`) || text.split(":")[1]?.split(",").includes(controller),
  );
  return line?.split(":").slice(2).join(":") ?? "";
}

async function isWritable(folder: string): Promise<boolean> {
  return access(folder, constants.W_OK).then(
    () => true,
    () => false,
  );
}
