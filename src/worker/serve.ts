import type { RequestListener } from "node:http";
import { getRequestListener } from "@hono/node-server";
import { PROTOCOL_VERSION } from "../protocol/limits.ts";
import { bindAdapters } from "./adapters.ts";
import { buildApp, FEATURES } from "./app.ts";
import type { Capability } from "./capability.ts";
import { ControlStream } from "./control-stream.ts";
import { directListener } from "./direct.ts";
import { Guard } from "./guard.ts";
import { cleanup } from "./life-cycle.ts";
import { listen, type Listening } from "./listen.ts";
import { log, parseLogLevel } from "./logger.ts";
import { killDescendants } from "./process-tree.ts";
import { loadRequestSchemas } from "./requests.ts";
import { within } from "../util/wait.ts";
import { WorkerRuntime } from "./runtime.ts";
import { codeSection } from "./surface.ts";

/** Time that cancelled calls have to end before the worker does. */
const LAST_WORDS_MS = 1_000;

/**
 * Serves a capability to the host that started this process, until the host ends it or is gone.
 *
 * With `CJM_INTROSPECT=1` it prints instead, as the last line of stdout, the `code` section of the
 * manifest, and exits. Resolves when the worker is ready.
 */
export async function serve(capability: Capability): Promise<void> {
  if (process.env["CJM_INTROSPECT"] === "1") {
    process.stdout.write(`${JSON.stringify(codeSection(capability))}\n`, () => process.exit(0));
    return;
  }
  try {
    await start(capability);
  } catch (error) {
    process.stderr.write(`${capability.name} did not start: ${describe(error)}\n`);
    process.exit(1);
  }
}

function describe(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}

async function start(capability: Capability): Promise<void> {
  const { env } = process;
  const control = new ControlStream(controlFd(env["CJM_CONTROL_FD"]), endWithHost);
  const dataFolder = env["CAPABILITY_DATA_DIR"];
  const logLevel = parseLogLevel(env["CJM_LOG_LEVEL"]);
  const runtime = new WorkerRuntime(capability, {
    sink: control,
    logLevel,
    adapters: await bindAdapters(capability, env["CJM_ADAPTERS"] ?? "", control),
    ...(dataFolder !== undefined && { dataFolder }),
  });

  let listening: Listening | undefined;
  endOnFailure(runtime, control, () => listening?.close());
  endOnSigterm(runtime, control, () => listening?.close());

  const token = await control.token();
  const address = env["CJM_LISTEN"] ?? "";
  const hosts = (): string[] => [`127.0.0.1:${listening?.port}`, `localhost:${listening?.port}`];
  const guard = new Guard({ token, sink: control, ...(address.startsWith("tcp:") && { hosts }) });
  const answer = getRequestListener(buildApp(runtime, guard).fetch);
  const rest: RequestListener = (incoming, outgoing) => void answer(incoming, outgoing);
  listening = await listen(directListener(runtime, guard, rest), address);
  control.send({
    type: "ready",
    protocol: PROTOCOL_VERSION,
    address: listening.address,
    pid: process.pid,
    name: capability.name,
    version: capability.version,
    features: [...FEATURES],
  });
  await loadRequestSchemas();
}

function controlFd(text: string | undefined): number {
  const fd = Number(text ?? Number.NaN);
  if (Number.isInteger(fd) && fd > 2) return fd;
  throw new Error("CJM_CONTROL_FD is missing: a worker is started by its host (try cjm-ctl)");
}

/** The host is gone: nothing of this worker may stay, and nothing of it may run any more code. */
function endWithHost(): void {
  try {
    killDescendants(process.env["CJM_WORKER_SESSION_ID"]);
  } finally {
    process.kill(process.pid, "SIGKILL");
  }
}

function endOnSigterm(runtime: WorkerRuntime, control: ControlStream, close: () => void): void {
  process.once("SIGTERM", () => {
    void stop(runtime, control, close);
  });
}

async function stop(
  runtime: WorkerRuntime,
  control: ControlStream,
  close: () => void,
): Promise<void> {
  runtime.cancel();
  // Cleaning up under a call that still runs could break what it uses; the host's grace is longer.
  await within(runtime.idle(), LAST_WORDS_MS);
  try {
    if (runtime.config !== undefined) await cleanup(runtime);
  } catch (error) {
    runtime.log.error("cleanup failed", error);
  }
  close();
  await exitAfter(control, 0);
}

async function exitAfter(control: ControlStream, code: number): Promise<void> {
  await control.end(code);
  process.exit(code);
}

function endOnFailure(runtime: WorkerRuntime, control: ControlStream, close: () => void): void {
  let isEnding = false;
  const fail = (error: unknown): void => {
    if (isEnding) return;
    isEnding = true;
    const logger = { sink: control, name: runtime.capability.name, level: "info" } as const;
    log({ ...logger, jobId: () => undefined }, "critical", "uncaught failure", error);
    close();
    void exitAfter(control, 1);
  };
  process.on("uncaughtException", fail);
  process.on("unhandledRejection", fail);
}
