import { Hono } from "hono/tiny";
import type { Context } from "hono";
import { CjmError } from "../errors/index.ts";
import { PROTOCOL_VERSION } from "../protocol/limits.ts";
import { readJsonBody, type WorkerBindings } from "./body.ts";
import { cancel, execute, executeStream, task } from "./call-routes.ts";
import type { Capability } from "./capability.ts";
import { checkTriggers } from "./config.ts";
import { refusalAnswer } from "./failure.ts";
import { type Guard, guarded } from "./guard.ts";
import * as lifeCycle from "./life-cycle.ts";
import { WorkerRuntime, type RuntimeOptions } from "./runtime.ts";
import { treeStats } from "./process-tree.ts";
import { configSchema, structuralSurface } from "./surface.ts";

export type WorkerApp = Hono<WorkerBindings>;

/** What a worker of this SDK can do beyond the original's. */
export const FEATURES = [
  "cancel_by_job",
  "control_frames",
  "deadlines",
  "release",
  "streaming",
  "tasks",
] as const;

/**
 * The whole HTTP surface of a worker, without a server: `app.request("/execute", …)` calls it in
 * process, which is how a capability is tested without a host.
 *
 * Nothing guards it: `serve` puts the token check in front.
 */
export function createWorkerApp(capability: Capability, options: RuntimeOptions = {}): WorkerApp {
  return buildApp(new WorkerRuntime(capability, options));
}

/** @throws {TypeError} for a capability that contradicts itself. */
export function buildApp(runtime: WorkerRuntime, guard?: Guard): WorkerApp {
  checkTriggers(runtime.capability);
  const app: WorkerApp = new Hono();
  if (guard !== undefined) app.use(guarded(guard));
  addIdentity(app, runtime);
  addLifeCycle(app, runtime);
  app.post("/execute", (c) => execute(c, runtime));
  app.post("/execute_stream", (c) => executeStream(c, runtime));
  app.post("/task", (c) => task(c, runtime));
  app.post("/cancel", (c) => cancel(c, runtime));
  app.get("/progress", (c) => c.json(runtime.progress.latest(c.req.query("job_id"))));
  addMonitor(app, runtime);
  app.notFound((c) => fail(c, runtime, unsupported(`${c.req.method} ${c.req.path}`)));
  app.onError((error, c) => fail(c, runtime, error));
  return app;
}

export function health({ capability }: WorkerRuntime): Record<string, unknown> {
  return {
    status: "running",
    pid: process.pid,
    name: capability.name,
    version: capability.version,
    protocol: PROTOCOL_VERSION,
    features: FEATURES,
  };
}

function addIdentity(app: WorkerApp, runtime: WorkerRuntime): void {
  const { capability } = runtime;
  app.get("/health", (c) => c.json(health(runtime)));
  app.get("/stats", async (c) => c.json({ ...(await treeStats()), usage: runtime.usage }));
  app.get("/structural_surface", (c) => c.json(structuralSurface(capability)));
  app.get("/config_schema", (c) => c.json(configSchema(capability)));
  app.get("/config", (c) => c.json(runtime.config ?? {}));
  app.get("/config_options", async (c) => c.json(await lifeCycle.configOptions(runtime)));
}

function addLifeCycle(app: WorkerApp, runtime: WorkerRuntime): void {
  const hookRequest = async (c: Context<WorkerBindings>): Promise<lifeCycle.HookRequest> => ({
    body: await readJsonBody(c),
    signal: c.req.raw.signal,
  });
  app.post("/initialize", async (c) =>
    c.json(await lifeCycle.initialize(runtime, await hookRequest(c))),
  );
  app.post("/reconfigure", async (c) =>
    c.json(await lifeCycle.reconfigure(runtime, await hookRequest(c))),
  );
  app.post("/prefetch", async (c) => c.json(await lifeCycle.prefetch(runtime, c.req.raw.signal)));
  app.post("/release", async (c) =>
    c.json(await lifeCycle.release(runtime, await readJsonBody(c))),
  );
  app.post("/on_enable", async (c) => c.json(await lifeCycle.enable(runtime)));
  app.post("/on_disable", async (c) => c.json(await lifeCycle.disable(runtime)));
  app.post("/cleanup", async (c) => c.json(await lifeCycle.cleanup(runtime)));
}

function addMonitor(app: WorkerApp, { capability }: WorkerRuntime): void {
  const { monitor } = capability;
  app.post("/get_system_status", async (c) => {
    if (monitor === undefined) throw unsupported("get_system_status");
    return c.json(await monitor.getSystemStatus());
  });
  app.post("/list_processes", async (c) => {
    if (monitor === undefined) throw unsupported("list_processes");
    return c.json(await monitor.listProcesses());
  });
}

function unsupported(what: string): CjmError {
  return new CjmError("METHOD_NOT_SUPPORTED", `this worker does not answer ${what}`);
}

function fail(c: Context<WorkerBindings>, runtime: WorkerRuntime, error: unknown): Response {
  const { status, body } = refusalAnswer(runtime.capability, error);
  return c.json(body, status);
}
