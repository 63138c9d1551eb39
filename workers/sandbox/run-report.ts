import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import type { FileRef } from "cjm-substrate/worker";
import type { CollectedFiles } from "./guest-files.ts";
import type { JailEngine } from "./jail.ts";
import type { UsageReport } from "./monitor.ts";
import { decodeOutput, type CapturedOutput } from "./output-capture.ts";
import type { JailPolicy, Limits } from "./policy.ts";
import type { RunOutput } from "./schemas.ts";
import { decideStatus, type Evidence, type GuestEnd, type Status } from "./status.ts";

/** Text of a stream in the result; what is longer goes to a file beside it. */
const INLINE_BYTES = 262_144;

/** Everything the supervisor saw of one run. */
export interface Seen extends Evidence {
  readonly usage: UsageReport;
  readonly stdout: CapturedOutput;
  readonly stderr: CapturedOutput;
  readonly collected: CollectedFiles;
  readonly outputFolder?: () => string;
  /** Limits as the kernel had them. */
  readonly readBack?: Partial<Pick<Limits, "memoryMb" | "pids">>;
}

const SILENCE: CapturedOutput = { bytes: Buffer.alloc(0), totalBytes: 0 };

/** A run that never began. */
export const NOTHING_SEEN: Seen = {
  firstLimit: undefined,
  end: undefined,
  usage: { wallMs: 0, cpuMs: 0, peakMemoryMb: 0 },
  stdout: SILENCE,
  stderr: SILENCE,
  collected: { files: {}, refused: {} },
};

/** The result of a run, from what was seen of it. */
export function reportRun(engine: JailEngine, policy: JailPolicy, seen: Seen): RunOutput {
  const status = decideStatus(seen);
  const isStopped = seen.firstLimit !== undefined && seen.firstLimit !== "output_limit";
  const end = isStopped || status === "setup_error" ? undefined : seen.end;
  return {
    status,
    message: seen.setupError ?? describe(status, end, policy.limits),
    exit_code: end?.exitCode ?? null,
    signal: signalOf(status, end),
    ...outputFields("stdout", seen),
    ...outputFields("stderr", seen),
    wall_ms: seen.usage.wallMs,
    cpu_ms: seen.usage.cpuMs,
    peak_memory_mb: seen.usage.peakMemoryMb,
    limits: limitsReport({ ...policy.limits, ...seen.readBack }),
    isolation: isolationReport(engine),
    is_timed_out: status === "wall_timeout" || status === "cpu_timeout",
    files: seen.collected.files,
    files_refused: seen.collected.refused,
  };
}

/** A guest that the supervisor ended, or whose end nobody saw, died by SIGKILL. */
function signalOf(status: Status, end: GuestEnd | undefined): string | null {
  if (status === "setup_error") return null;
  if (end === undefined) return "SIGKILL";
  return end.signal === null ? null : signalName(end.signal);
}

type StreamName = "stdout" | "stderr";
type OutputFields<Name extends StreamName> = Pick<RunOutput, Name | `${Name}_truncated`> &
  Partial<Pick<RunOutput, `${Name}_base64` | `${Name}_file`>>;

function outputFields<Name extends StreamName>(name: Name, seen: Seen): OutputFields<Name> {
  const captured = seen[name];
  const isLong = captured.bytes.length > INLINE_BYTES;
  const inline = isLong
    ? { ...captured, bytes: captured.bytes.subarray(0, INLINE_BYTES) }
    : captured;
  const { text, base64 } = decodeOutput(inline);
  const fields: Record<string, unknown> = {
    [name]: text,
    [`${name}_truncated`]: captured.totalBytes > captured.bytes.length,
  };
  if (base64 !== undefined) fields[`${name}_base64`] = base64;
  if (isLong && seen.outputFolder !== undefined) {
    fields[`${name}_file`] = writeOutput(join(seen.outputFolder(), name), captured.bytes);
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the names are built from Name
  return fields as OutputFields<Name>;
}

function writeOutput(path: string, bytes: Buffer): FileRef {
  writeFileSync(path, bytes);
  const sha256 = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
  return { __wire__: "file.ref", data: { path, size: bytes.length, sha256 } };
}

function limitsReport(limits: Limits): RunOutput["limits"] {
  return {
    wall_ms: limits.wallMs,
    cpu_ms: limits.cpuMs,
    memory_mb: limits.memoryMb,
    pids: limits.pids,
    output_bytes: limits.outputBytes,
    disk_mb: limits.diskMb,
  };
}

function isolationReport({ backend, cgroups }: JailEngine): RunOutput["isolation"] {
  return {
    backend: backend.name,
    version: backend.version,
    memory_enforced_by: cgroups === null ? "sampled" : "cgroup",
    not_enforced: [...backend.notEnforced],
  };
}

function describe(status: Status, end: GuestEnd | undefined, limits: Limits): string {
  const sentences: Readonly<Record<Status, string>> = {
    ok: "exited with 0",
    nonzero: `exited with ${end?.exitCode}`,
    signal: `ended by ${signalName(end?.signal ?? constants.signals.SIGKILL)}`,
    wall_timeout: `ran longer than ${limits.wallMs} ms`,
    cpu_timeout: `used more than ${limits.cpuMs} ms of CPU time`,
    oom: `used more than ${limits.memoryMb} MB of memory`,
    pids: `wanted more than ${limits.pids} processes and threads`,
    output_limit: `printed more than ${limits.outputBytes} bytes`,
    disk_limit: `filled a file system of ${limits.diskMb} MB`,
    seccomp: "made a system call that is forbidden",
    setup_error: "could not be started",
  };
  return sentences[status];
}

const SIGNAL_NAMES = new Map(
  Object.entries(constants.signals)
    .map(([name, number]) => [number, name] as const)
    // SIGABRT before its older name SIGIOT.
    .toReversed(),
);

function signalName(signal: number): string {
  return SIGNAL_NAMES.get(signal) ?? `signal ${signal}`;
}
