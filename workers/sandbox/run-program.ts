import { lstatSync } from "node:fs";
import { join } from "node:path";
import { CjmError } from "cjm-substrate/worker";
import { collectFiles, stageFiles, type CollectedFiles, type StagedFile } from "./guest-files.ts";
import type { Jail } from "./jail.ts";
import type { RunEngine } from "./jail-reserve.ts";
import { Monitor } from "./monitor.ts";
import { LineChannel } from "./line-channel.ts";
import type { JailPolicy } from "./policy.ts";
import { NOTHING_SEEN, reportRun } from "./run-report.ts";
import type { RunOutput } from "./schemas.ts";
import type { GuestEnd } from "./status.ts";

/** One program to run in one jail. */
export interface Program {
  readonly policy: JailPolicy;
  readonly files: readonly StagedFile[];
  readonly stdin?: string | Uint8Array | undefined;
  readonly collect: readonly string[];
  /** Talks with the guest over its channel; when it resolves, the guest is done. */
  readonly converse?: ((channel: LineChannel) => Promise<void>) | undefined;
}

export interface RunContext {
  readonly signal: AbortSignal;
  /** Made on first use, so it is asked for only when there is something to put into it. */
  outputFolder(): string;
  onOutput?(stream: "stdout" | "stderr", bytes: Buffer): void;
}

/**
 * Runs one program in a jail of its own and says how it ended.
 *
 * A jail that cannot be made is the status `setup_error`, with the backend's own words.
 *
 * @throws `signal.reason` when the caller aborts; the jail's processes are gone then.
 */
export async function runProgram(
  engine: RunEngine,
  program: Program,
  context: RunContext,
): Promise<RunOutput> {
  try {
    const output = await runInJail(engine, program, context);
    engine.reserve.offer(engine, program.policy);
    return output;
  } catch (error) {
    if (!(error instanceof CjmError) || error.code !== "ISOLATION_UNAVAILABLE") throw error;
    return reportRun(engine, program.policy, { ...NOTHING_SEEN, setupError: error.message });
  }
}

async function runInJail(
  engine: RunEngine,
  program: Program,
  context: RunContext,
): Promise<RunOutput> {
  const { policy } = program;
  let monitor: Monitor | undefined;
  await using jail = await engine.reserve.take(engine, policy, context.signal);
  jail.assign({
    policy,
    stdin: program.stdin,
    onOutput: (stream, bytes) => context.onOutput?.(stream, bytes),
    onOverflow: () => monitor?.outputExceeded(),
  });
  stageFiles(jail.workFolder, program.files, policy.identity);
  const setupError = missingProgram(jail);
  if (setupError !== undefined) {
    return reportRun(engine, policy, { ...NOTHING_SEEN, setupError });
  }
  const readBack = jail.cgroup?.effectiveLimits();
  using watching = new Monitor(jail, () => void jail.endGuest());
  monitor = watching;
  const end = await guestEnd(jail, program, context.signal);
  const usage = watching.finish();
  const collected = collect(jail.workFolder, program, context);
  const { stdout, stderr } = await jail.finish();
  context.signal.throwIfAborted();
  const { firstLimit } = watching;
  return reportRun(engine, policy, {
    end,
    usage,
    stdout,
    stderr,
    collected,
    firstLimit,
    outputFolder: () => context.outputFolder(),
    ...(readBack !== undefined && { readBack }),
  });
}

/** Said before the guest starts, because afterwards a missing program and exit code 127 are alike. */
function missingProgram({ root, policy }: Jail): string | undefined {
  const [name = ""] = policy.argv;
  const path = policy.env["PATH"] ?? "";
  if (name.includes("/") && !name.startsWith("/")) return undefined;
  const found = candidates(name, path).some((candidate) => existsBelow(root, candidate));
  return found ? undefined : `there is no program "${name}" in the jail`;
}

function candidates(name: string, path: string): string[] {
  return name.startsWith("/") ? [name] : path.split(":").map((folder) => join(folder, name));
}

/** The last link is not followed: it is read in the jail's terms, not in ours. */
function existsBelow(root: string, path: string): boolean {
  return lstatSync(join(root, path), { throwIfNoEntry: false }) !== undefined;
}

async function guestEnd(
  jail: Jail,
  program: Program,
  signal: AbortSignal,
): Promise<GuestEnd | undefined> {
  const onAbort = (): void => jail.kill();
  signal.addEventListener("abort", onAbort);
  try {
    signal.throwIfAborted();
    jail.openGate();
    if (program.converse !== undefined) await converse(jail, program.converse);
    return await jail.guestEnd();
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Ends with the guest, whose end the channel does not tell: the jail's first process holds it too. */
async function converse(jail: Jail, talk: (channel: LineChannel) => Promise<void>): Promise<void> {
  if (jail.channel === undefined)
    throw new TypeError("A conversation needs a policy with a channel");
  const channel = new LineChannel(jail.channel);
  const talking = talk(channel);
  await Promise.race([talking, jail.guestEnd()]);
  channel[Symbol.dispose]();
  await talking;
  void jail.endGuestAfter(GOODBYE_MS);
}

/** How long a guest may take to end once its conversation is over. */
const GOODBYE_MS = 500;

function collect(folder: string, program: Program, context: RunContext): CollectedFiles {
  if (program.collect.length === 0 || context.signal.aborted) return { files: {}, refused: {} };
  const maxBytes = program.policy.limits.diskMb * 1_048_576;
  return collectFiles(folder, program.collect, { outputFolder: context.outputFolder(), maxBytes });
}
