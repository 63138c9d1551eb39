import { spawn, type ChildProcess } from "node:child_process";
import { openSync } from "node:fs";
import type { JailEngine } from "./jail.ts";
import type { Launch } from "./backend.ts";
import type { JailCgroup } from "./cgroup.ts";
import { FD, type JailPolicy } from "./policy.ts";
import { closeAll } from "./scratch.ts";

/** Descriptors that the jail is started with; the caller goes on owning them. */
export interface JailStreams {
  readonly stdin: number;
  readonly stdout: number;
  readonly stderr: number;
}

/** Starts the backend's first process, in the cgroup, with every descriptor of `FD` in its place. */
export function spawnJail(
  { backend, scratch, filterPath }: JailEngine,
  policy: JailPolicy,
  { streams, cgroup }: { readonly streams: JailStreams; readonly cgroup: JailCgroup | undefined },
): ChildProcess {
  const launch = backend.launch(policy);
  const [file = "", ...words] = commandOf(launch, cgroup);
  const { stdin, stdout, stderr } = streams;
  const opened: number[] = [];
  const keep = (fd: number): number => {
    opened.push(fd);
    return fd;
  };
  try {
    const args = keep(scratch.fileWith(launch.optionFile ?? ""));
    const stdio: ("pipe" | "ignore" | number)[] = [
      "pipe",
      "pipe",
      "pipe",
      stdin,
      stdout,
      stderr,
      args,
    ];
    // Descriptors this process was started with would reach the guest; they are put out of reach.
    const nothing = keep(openSync("/dev/null", "r"));
    for (const fd of scratch.inheritedFds) stdio[fd] ??= nothing;
    if (backend.wantsFilter && filterPath !== undefined) {
      stdio[FD.seccomp] = keep(openSync(filterPath, "r"));
    }
    if (policy.hasChannel === true) stdio[FD.channel] = "pipe";
    return spawn(file, words, {
      // Node leaves holes out and would move the rest down.
      stdio: Array.from(stdio, (entry) => entry ?? "ignore"),
      cwd: launch.cwd ?? "/",
      detached: true,
      // What a backend inherits, its guest could read from /proc.
      env: launch.env ?? { PATH: process.env["PATH"] ?? "/usr/bin:/bin" },
    });
  } finally {
    closeAll(opened);
  }
}

function commandOf({ file, args }: Launch, cgroup: JailCgroup | undefined): readonly string[] {
  const command = [file, ...args];
  return cgroup?.command(command) ?? command;
}
