import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { Backend, BackendName } from "./backend.ts";
import { bubblewrapBackend } from "./bubblewrap.ts";
import { Jail, type JailEngine } from "./jail.ts";
import { findProgram } from "./languages.ts";
import type { Identity, JailPolicy, Mount } from "./policy.ts";

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

/** Root has no user namespace of its own to hide in, so the guest becomes nobody by setuid. */
export function identityHere(): Identity {
  return process.geteuid?.() === 0 ? "setuid" : "userns";
}

/** The jail a probe makes: it runs `true` under the same policy as real ones. */
export function probePolicy(mounts: readonly Mount[]): JailPolicy {
  return {
    mounts,
    env: { PATH: "/usr/bin:/bin" },
    identity: identityHere(),
    argv: ["true"],
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
  const { stdout } = await run(file, ["--version"]);
  const version = stdout.trim().split(" ").at(-1) ?? "";
  const backend = bubblewrapBackend(file, version);
  return tried(backend, { ...engine, backend }, mounts);
}

async function tried(
  backend: Backend,
  engine: JailEngine,
  mounts: readonly Mount[],
): Promise<ProbeResult> {
  const { name, version } = backend;
  try {
    await using jail = await Jail.start(engine, probePolicy(mounts), {
      signal: AbortSignal.timeout(10_000),
    });
    jail.openGate();
    const end = await jail.guestEnd();
    if (end?.exitCode === 0) return { name, version, usable: true, backend };
    return { name, version, usable: false, reason: `"true" did not run in it (${jail.log})` };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { name, version, usable: false, reason };
  }
}
