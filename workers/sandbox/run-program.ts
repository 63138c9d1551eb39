import { constants } from "node:os";
import { join } from "node:path";
import { collectFiles, stageFiles, type CollectedFiles, type StagedFile } from "./guest-files.ts";
import { Jail, type JailEngine } from "./jail.ts";
import { Monitor, type UsageReport } from "./monitor.ts";
import { decodeOutput, type CapturedOutput } from "./output-capture.ts";
import { WORK_FOLDER, type JailPolicy } from "./policy.ts";
import type { RunOutput } from "./schemas.ts";
import { decideStatus, type GuestEnd, type LimitStatus, type Status } from "./status.ts";

/** One program to run in one jail. */
export interface Program {
  readonly policy: JailPolicy;
  readonly files: readonly StagedFile[];
  readonly stdin?: string | Uint8Array | undefined;
  readonly collect: readonly string[];
}

export interface RunContext {
  readonly signal: AbortSignal;
  /** Made on first use, so it is asked for only when there is something to collect. */
  outputFolder(): string;
  onOutput?(stream: "stdout" | "stderr", bytes: Buffer): void;
}

/**
 * Runs one program in a jail of its own and says how it ended.
 *
 * @throws `signal.reason` when the caller aborts; the jail's processes are gone then.
 */
export async function runProgram(
  engine: JailEngine,
  program: Program,
  context: RunContext,
): Promise<RunOutput> {
  const { policy } = program;
  let monitor: Monitor | undefined;
  await using jail = await Jail.start(engine, policy, {
    stdin: program.stdin,
    signal: context.signal,
    onOutput: (stream, bytes) => context.onOutput?.(stream, bytes),
    onOverflow: () => monitor?.outputExceeded(),
  });
  const workFolder = join(jail.root, WORK_FOLDER);
  stageFiles(workFolder, program.files, policy.identity);
  using watching = new Monitor(jail, policy.limits, () => void jail.endGuest());
  monitor = watching;
  const end = await guestEnd(jail, context.signal);
  const usage = watching.finish();
  const collected = collect(workFolder, program, context);
  const { stdout, stderr } = await jail.finish();
  context.signal.throwIfAborted();
  const seen = { end, usage, stdout, stderr, collected, firstLimit: watching.firstLimit };
  return report(engine, policy, seen);
}

async function guestEnd(jail: Jail, signal: AbortSignal): Promise<GuestEnd | undefined> {
  const onAbort = (): void => jail.kill();
  signal.addEventListener("abort", onAbort);
  try {
    signal.throwIfAborted();
    jail.openGate();
    return await jail.guestEnd();
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function collect(folder: string, program: Program, context: RunContext): CollectedFiles {
  if (program.collect.length === 0 || context.signal.aborted) return { files: {}, refused: {} };
  const maxBytes = program.policy.limits.diskMb * 1_048_576;
  return collectFiles(folder, program.collect, { outputFolder: context.outputFolder(), maxBytes });
}

interface Seen {
  readonly end: GuestEnd | undefined;
  readonly usage: UsageReport;
  readonly stdout: CapturedOutput;
  readonly stderr: CapturedOutput;
  readonly collected: CollectedFiles;
  readonly firstLimit: LimitStatus | undefined;
}

function report(engine: JailEngine, policy: JailPolicy, seen: Seen): RunOutput {
  const status = decideStatus(seen);
  const { limits } = policy;
  const stdout = decodeOutput(seen.stdout);
  const stderr = decodeOutput(seen.stderr);
  const isLimit = seen.firstLimit !== undefined && seen.firstLimit !== "output_limit";
  const end = isLimit ? undefined : seen.end;
  return {
    status,
    message: describe(status, end, policy),
    exit_code: end?.exitCode ?? null,
    signal: end === undefined || end.signal !== null ? signalName(end?.signal ?? SIGKILL) : null,
    stdout: stdout.text,
    stderr: stderr.text,
    ...(stdout.base64 === undefined ? {} : { stdout_base64: stdout.base64 }),
    ...(stderr.base64 === undefined ? {} : { stderr_base64: stderr.base64 }),
    stdout_truncated: seen.stdout.totalBytes > seen.stdout.bytes.length,
    stderr_truncated: seen.stderr.totalBytes > seen.stderr.bytes.length,
    wall_ms: seen.usage.wallMs,
    cpu_ms: seen.usage.cpuMs,
    peak_memory_mb: seen.usage.peakMemoryMb,
    limits: {
      wall_ms: limits.wallMs,
      cpu_ms: limits.cpuMs,
      memory_mb: limits.memoryMb,
      pids: limits.pids,
      output_bytes: limits.outputBytes,
      disk_mb: limits.diskMb,
    },
    isolation: isolationReport(engine),
    is_timed_out: status === "wall_timeout" || status === "cpu_timeout",
    files: seen.collected.files,
    files_refused: seen.collected.refused,
  };
}

export function isolationReport({ backend, cgroups }: JailEngine): RunOutput["isolation"] {
  return {
    backend: backend.name,
    version: backend.version,
    memory_enforced_by: cgroups === null ? "sampled" : "cgroup",
  };
}

function describe(status: Status, end: GuestEnd | undefined, { limits }: JailPolicy): string {
  const sentences: Readonly<Record<Status, string>> = {
    ok: "exited with 0",
    nonzero: `exited with ${end?.exitCode}`,
    signal: `ended by ${signalName(end?.signal ?? SIGKILL)}`,
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

const SIGKILL = constants.signals.SIGKILL;
const SIGNAL_NAMES = new Map(
  Object.entries(constants.signals)
    .map(([name, number]) => [number, name] as const)
    // SIGABRT before its older name SIGIOT.
    .toReversed(),
);

function signalName(signal: number): string {
  return SIGNAL_NAMES.get(signal) ?? `signal ${signal}`;
}
