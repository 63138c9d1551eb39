import type { z } from "zod";
import { CjmError } from "../errors/index.ts";
import { WorkerConnection, type WorkerExit } from "../process/index.ts";
import { statusReplySchema } from "../protocol/index.ts";
import { findDrift } from "./drift.ts";
import type { InstanceLog } from "./instance-log.ts";
import type { InstanceSpec } from "./instance-spec.ts";
import { followOriginalDiagnostics } from "./original/diagnostics-tail.ts";
import type { InstanceServices } from "./services.ts";
import { type StallLedger, StallWatch } from "./stall-watch.ts";
import { prepareSpawn, type Spawn } from "./worker-spec.ts";

type StatusReply = z.output<typeof statusReplySchema>;

/** A worker that has been initialized with the instance's config. */
export interface ReadyWorker {
  readonly connection: WorkerConnection;
  readonly sessionId: string;
  /** What the worker says of itself that its manifest says otherwise. */
  readonly drift: readonly string[];
}

export interface SessionParts {
  readonly spec: InstanceSpec;
  readonly services: InstanceServices;
  readonly log: InstanceLog;
  readonly stalls: StallLedger;
}

/**
 * Starts a worker and initializes it. In every failure no process is left behind.
 *
 * @throws what {@link WorkerConnection.start} and the worker's `/initialize` throw;
 *   `PREFETCH_STALLED` if it stops showing progress; `stop.reason` if the caller aborts.
 */
export async function startSession(
  parts: SessionParts,
  gpuUuid: string | null,
  stop: AbortSignal,
): Promise<ReadyWorker> {
  const { spec, services, log } = parts;
  const startedAt = performance.now();
  const { definition, adapters } = spec;
  const spawn = await prepareSpawn({ definition, adapters, gpuUuid }, services);
  const { sessionId } = spawn.spec;
  const connection = await WorkerConnection.start(spawn.spec, log.sink(sessionId), stop);
  const worker = { connection, sessionId, drift: [] };
  try {
    await log.journal(sessionId, [["worker_spawned", spawned(spawn, connection)]]);
    if (spawn.originalDiagnostics !== undefined) {
      followOriginalDiagnostics(spawn.originalDiagnostics, {
        sessionId,
        ended: connection.worker.exited,
        diagnostics: services.diagnostics,
      });
    }
    await callHook(worker, parts, { path: "/initialize", body: spec.config, signal: stop });
    const drift = await driftOf(worker, parts, stop);
    if (drift.length > 0) log.note(`differs from its manifest: ${drift.join(", ")}`, sessionId);
    const waitSeconds = (performance.now() - startedAt) / 1_000;
    await log.journal(sessionId, readyRows(spec, waitSeconds, drift));
    stop.throwIfAborted();
    return { ...worker, drift };
  } catch (error) {
    await recordDeath(worker, log, await connection.kill(), "failed to initialize");
    throw error;
  }
}

/** A worker that does not answer has no say, and does not keep its instance from being ready. */
async function driftOf(
  { connection }: Pick<ReadyWorker, "connection">,
  { spec, services }: SessionParts,
  stop: AbortSignal,
): Promise<ReadyWorker["drift"]> {
  if (!services.driftDetection) return [];
  const late = AbortSignal.timeout(services.limits.startTimeoutMs);
  return await findDrift(spec.definition, connection, AbortSignal.any([stop, late]));
}

export interface HookCall {
  readonly path: "/initialize" | "/reconfigure" | "/prefetch" | "/on_disable" | "/on_enable";
  readonly body: unknown;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Calls a hook of the life cycle, which may take as long as it shows progress; one that stalls ends
 * its worker.
 *
 * @throws {CjmError} `PREFETCH_STALLED`; what the worker answered; its death.
 */
export async function callHook(
  { connection, sessionId }: Pick<ReadyWorker, "connection" | "sessionId">,
  { spec, services, log, stalls }: SessionParts,
  { path, body, signal }: HookCall,
): Promise<StatusReply> {
  using watch = new StallWatch({
    pid: connection.worker.pid,
    capability: spec.definition.name,
    phase: path.slice(1),
    thresholdMs: services.limits.stallMs,
  });
  log.onHookProgress = () => {
    watch.progressed();
  };
  const stop = signal === undefined ? watch.signal : AbortSignal.any([signal, watch.signal]);
  try {
    const { value } = await connection.post(path, body, statusReplySchema, { signal: stop });
    if (value.status === "error")
      throw new CjmError("CAPABILITY_ERROR", refusal(spec, path, value));
    return value;
  } catch (error) {
    if (!(error instanceof CjmError) || error !== watch.signal.reason) throw error;
    log.note(`${error.message}; the worker is ended`, sessionId);
    await connection.kill();
    throw stalls.record(`${spec.definition.name} ${spec.configHash} ${path}`, error);
  } finally {
    log.onHookProgress = undefined;
  }
}

/** The account of a worker's end. */
export async function recordDeath(
  { sessionId }: Pick<ReadyWorker, "sessionId">,
  log: InstanceLog,
  { code, signal, oomKills }: WorkerExit,
  phase: string,
): Promise<void> {
  const evidence = { phase, returncode: code, signal, oom_kills: oomKills };
  await log.journalDeath(sessionId, evidence);
}

function refusal({ definition }: InstanceSpec, path: string, { detail }: StatusReply): string {
  return `Worker of "${definition.name}" failed in ${path}: ${detail ?? "it gave no reason"}`;
}

function spawned({ spec }: Spawn, { worker }: WorkerConnection): Record<string, unknown> {
  return {
    pid: worker.pid,
    address: worker.ready.address,
    command: spec.command,
    version: worker.ready.version,
    env_overlay_keys: Object.keys(spec.env).sort(),
    cage: spec.cage,
  };
}

function readyRows(
  { config, adapters }: InstanceSpec,
  waitSeconds: number,
  drift: readonly string[],
): (readonly [string, Record<string, unknown>])[] {
  const keys = Object.keys(config).sort();
  const specs = adapters.map(({ spec }) => spec);
  return [
    ["config_applied", { phase: "initialize", config_keys: keys }],
    ...(specs.length > 0 ? [["adapter_bound", { specs }] as const] : []),
    ["worker_ready", { wait_seconds: waitSeconds, drift }],
  ];
}
