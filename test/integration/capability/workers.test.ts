import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Pipeline } from "../../../src/index.ts";
import { endSessionProcesses, identify, isAlive } from "../../../src/process/index.ts";
import { containing, failure, Project, rows, run, until } from "./support.ts";

let project: Project;
let pipeline: Pipeline;

beforeAll(async () => {
  project = await Project.create();
  const count = { input_schema: {}, output_schema: {}, streaming: true };
  await project.addRaw("echo", "echo");
  await project.addRaw("killed-while-running", "victim");
  await project.addRaw("leaks-grandchild", "leaky");
  await project.addRaw("rubbish-frames", "rubbish");
  await project.addRaw("slow-stream", "slow", { code: { actions: { count } } });
  await project.addRaw("crash-on-start", "crash");
  await project.addRaw("invalid-json", "invalid-json");
  await project.addRaw("huge-body", "huge-body");
  await project.addRaw("wrong-name", "expected");
  await project.addRaw("old-protocol", "future");
  pipeline = await project.open();
});
afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
  await project[Symbol.asyncDispose]();
});

describe("a job on a broken worker fails with one clear error", () => {
  test.each([
    ["crash", "WORKER_EXITED", "no module named torch"],
    ["expected", "WORKER_HANDSHAKE", 'says it is "impostor"'],
    ["future", "WORKER_HANDSHAKE", "speaks protocol 99"],
    ["invalid-json", "RESPONSE_INVALID", "not JSON"],
    ["huge-body", "RESPONSE_TOO_LARGE", "larger things are files"],
  ])("%s: %s", async (instance, code, message) => {
    const handle = await pipeline.queue.submit(instance, {});
    expect(await failure(handle.result())).toMatchObject({ code, message: containing(message) });
    expect(await pipeline.queue.getJob(handle.id)).toMatchObject({
      status: "failed",
      error: { code },
    });
  });

  test("killed in a call: WORKER_OOM, and the journal tells how it died", async () => {
    const error = await failure(run(pipeline, "victim", "die"));
    expect(error).toMatchObject({ code: "WORKER_OOM", category: "resource" });
    await until(async () => (await rows(pipeline, "worker_died")).length > 0);
    const died = await pipeline.journal.query({
      eventType: "worker_died",
      capabilityInstanceId: "victim",
    });
    expect(died[0]?.payload).toMatchObject({ signal: "SIGKILL", phase: "ended by itself" });
  });
});

test("a dead worker is replaced at the next call", async () => {
  await run(pipeline, "echo", "say", { text: "one" });
  const before = pipeline.manager.instance("echo").pid;
  await pipeline.manager.instance("echo").kill("test");
  expect(await run(pipeline, "echo", "say", { text: "two" })).toEqual({ text: "two" });
  expect(pipeline.manager.instance("echo").pid).not.toBe(before);
});

test("rubbish on the control stream becomes diagnostics, and the call its result", async () => {
  expect(await run(pipeline, "rubbish", "rubbish")).toBe("done");
});

test("leaving a stream cancels its job and frees the worker", async () => {
  const stream = await pipeline.queue.submitStream("slow", { every_ms: 1 }, { action: "count" });
  const seen: unknown[] = [];
  for await (const chunk of stream) {
    seen.push(chunk);
    if (seen.length === 2) break;
  }
  expect(seen).toEqual([{ n: 0 }, { n: 1 }]);
  await until(() => pipeline.manager.instance("slow").calls.size === 0);
});

test("a grandchild in a session of its own goes when its instance is unloaded", async () => {
  await run(pipeline, "leaky", "leak");
  const { connection, sessionId } = await pipeline.manager.instance("leaky").ensureReady();
  const worker = identify(connection.worker.pid);
  expect(await pipeline.manager.unload("leaky")).toBe(true);
  expect(worker !== undefined && isAlive(worker)).toBe(false);
  expect(await endSessionProcesses((id) => id === sessionId)).toEqual([]);
});

test("every worker that came is accounted for, with its cage and the names of its variables", async () => {
  const spawned = await rows(pipeline, "worker_spawned");
  expect(spawned.length).toBeGreaterThan(0);
  for (const { payload } of spawned) {
    expect(payload).toMatchObject({ cage: expect.stringMatching(/pidns|group/u) as unknown });
    expect(payload["env_overlay_keys"]).toContain("CJM_LISTEN");
  }
});
