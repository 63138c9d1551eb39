import { spawn, type ChildProcess } from "node:child_process";
import { CjmError } from "../errors/index.ts";
import { cagedCommand, probeCage } from "../process/cage.ts";
import type { Cage } from "../protocol/index.ts";
import type { InstallLog } from "./install-log.ts";

export interface CommandOptions {
  readonly cwd: string;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  readonly log: InstallLog;
  /** Standard output is kept apart, at most this many bytes, and returned. */
  readonly captureBytes?: number;
}

let cage: Promise<Cage> | undefined;

/**
 * Runs an installer with its output in the log; nothing of it outlives this process or an abort.
 *
 * Resolves to its standard output where `captureBytes` is given.
 *
 * @throws {CjmError} `INSTALL_FAILED` with the last lines of output when it fails.
 * @throws `signal.reason` on abort.
 */
export async function runCommand(
  command: readonly string[],
  options: CommandOptions,
): Promise<string> {
  const { log, signal, captureBytes = 0 } = options;
  signal.throwIfAborted();
  log.startCommand(command);
  cage ??= probeCage().then((probe) => probe.cage);
  const [file = "", ...args] = cagedCommand(await cage, command);
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: options.env,
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const endGroup = (): void => killGroup(child.pid);
  signal.addEventListener("abort", endGroup, { once: true });
  const captured: Buffer[] = [];
  let capturedBytes = 0;
  child.stdout.on("data", (chunk: Buffer) => {
    if (captureBytes === 0) return log.push(chunk);
    capturedBytes += chunk.length;
    if (capturedBytes <= captureBytes) captured.push(chunk);
    else endGroup();
  });
  child.stderr.on("data", (chunk: Buffer) => log.push(chunk));
  try {
    const how = await endOf(child);
    log.endOutput();
    signal.throwIfAborted();
    if (how !== undefined) throw failure(command, log, how);
  } catch (error) {
    if (error instanceof CjmError || signal.aborted) throw error;
    throw failure(command, log, error instanceof Error ? error.message : String(error), error);
  } finally {
    signal.removeEventListener("abort", endGroup);
  }
  return Buffer.concat(captured).toString("utf8");
}

/** How a process ended, in words; undefined for success. */
function endOf(child: ChildProcess): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, killedBy) => {
      if (code === 0) resolve(undefined);
      else resolve(code === null ? `on ${killedBy}` : `with code ${code}`);
    });
  });
}

function killGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It ended by itself in the meantime.
  }
}

function failure(
  command: readonly string[],
  log: InstallLog,
  how: string,
  cause?: unknown,
): CjmError {
  const tail = log.tail();
  const shown = command.map((part) => (part.length > 80 ? `${part.slice(0, 77)}...` : part));
  return new CjmError(
    "INSTALL_FAILED",
    `\`${shown.slice(0, 6).join(" ")}${shown.length > 6 ? " ..." : ""}\` ended ${how}${tail === "" ? "" : `:\n${tail}`}\n(all of it: ${log.path})`,
    { cause, details: { command, log: log.path } },
  );
}
