import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Backend } from "./backend.ts";
import { INIT_SCRIPT } from "./jail-init.ts";

/** A PID namespace and nothing else, so that ending its first process ends all of it. */
const CAGE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
const USER_CAGE = ["unshare", "--user", "--map-current-user", ...CAGE.slice(1)];

const run = promisify(execFile);

/**
 * No isolation: the guest is a process of this user with this machine's files and network.
 *
 * The limits on time, memory, processes and output hold; its tree is still caged in a PID namespace
 * where the kernel allows one.
 */
export async function noIsolation(): Promise<Backend> {
  const cage = process.geteuid?.() === 0 ? CAGE : USER_CAGE;
  const hasPidNamespace = await works(cage);
  const words = ["--pdeathsig", "KILL", "--", ...(hasPidNamespace ? cage : [])];
  return {
    name: "none",
    version: hasPidNamespace ? "pidns" : "group",
    wantsFilter: false,
    hasPidNamespace,
    notEnforced: ["files", "network", "system calls"],
    launch: (policy) => ({
      file: "setpriv",
      args: [...words, "/bin/sh", "-c", INIT_SCRIPT, "init"],
      env: { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
      cwd: policy.workSource,
    }),
  };
}

async function works([file = "", ...args]: readonly string[]): Promise<boolean> {
  try {
    await run(file, [...args, "true"]);
    return true;
  } catch {
    return false;
  }
}
