import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";
import type { Backend, BackendName } from "./backend.ts";
import { bubblewrapBackend } from "./bubblewrap.ts";
import { Jail, type JailEngine } from "./jail.ts";
import { findProgram } from "./languages.ts";
import { nsjailBackend } from "./nsjail.ts";
import type { Identity, JailPolicy, Mount } from "./policy.ts";
import { isArchitecture } from "./seccomp.ts";

/** One backend tried on this machine. */
export interface ProbeResult {
  readonly name: BackendName;
  readonly usable: boolean;
  readonly version?: string;
  /** Why it cannot be used. */
  readonly reason?: string;
  readonly backend?: Backend;
}

const run = promisify(execFile);
const SIGKILL = 9;

/** Root has no user namespace of its own to hide in, so the guest becomes nobody by setuid. */
export function identityHere(): Identity {
  return process.geteuid?.() === 0 ? "setuid" : "userns";
}

/**
 * The jail a probe makes, under the same policy as real ones. Its guest is killed, because how that
 * is told depends on the awk of this machine, and `true` would run with any.
 */
function probePolicy(mounts: readonly Mount[]): JailPolicy {
  return {
    mounts,
    env: { PATH: "/usr/bin:/bin" },
    identity: identityHere(),
    argv: ["/bin/sh", "-c", "kill -9 $$"],
    limits: { wallMs: 5_000, cpuMs: 5_000, memoryMb: 64, pids: 16, outputBytes: 4_096, diskMb: 1 },
  };
}

/** Finds `bwrap` and makes one jail with it. */
export async function probeBubblewrap(
  engine: Omit<JailEngine, "backend">,
  mounts: readonly Mount[],
): Promise<ProbeResult> {
  const file = findProgram("bwrap");
  if (file === undefined) {
    return { name: "bubblewrap", usable: false, reason: 'no "bwrap" on PATH' };
  }
  if (engine.filterPath === undefined) {
    return {
      name: "bubblewrap",
      usable: false,
      reason: `no system call filter for ${process.arch}`,
    };
  }
  const { stdout } = await run(file, ["--version"]);
  const version = stdout.trim().split(" ").at(-1) ?? "";
  const backend = bubblewrapBackend(file, version);
  return tried(backend, { ...engine, backend }, mounts);
}

/** Finds `nsjail` and makes one jail with it. */
export async function probeNsjail(
  engine: Omit<JailEngine, "backend">,
  mounts: readonly Mount[],
): Promise<ProbeResult> {
  const name = "nsjail";
  const file = findProgram(name);
  if (file === undefined) return { name, usable: false, reason: 'no "nsjail" on PATH' };
  if (!isArchitecture(process.arch)) {
    return { name, usable: false, reason: `no system call filter for ${process.arch}` };
  }
  const version = await nsjailVersion(file);
  const backend = nsjailBackend(file, version, process.arch);
  return tried(backend, { ...engine, backend }, mounts);
}

/** nsjail prints no version; the file's hash says which build it was. */
async function nsjailVersion(file: string): Promise<string> {
  const hash = createHash("sha256").update(await readFile(file));
  return `sha256:${hash.digest("hex").slice(0, 12)}`;
}

async function tried(
  backend: Backend,
  engine: JailEngine,
  mounts: readonly Mount[],
): Promise<ProbeResult> {
  const { name, version } = backend;
  try {
    await using jail = await Jail.start(engine, probePolicy(mounts), AbortSignal.timeout(10_000));
    jail.openGate();
    const end = await jail.guestEnd();
    if (end?.signal === SIGKILL) return { name, version, usable: true, backend };
    const seen = end === undefined ? "no status" : `exit code ${end.exitCode}`;
    const reason = `a program killed in it came out with ${seen} (${jail.log})`;
    return { name, version, usable: false, reason };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { name, version, usable: false, reason };
  }
}
