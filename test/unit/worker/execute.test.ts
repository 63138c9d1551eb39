import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate as tick } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { CjmError, currentCall, defineAction, z } from "cjm-substrate/worker";
import { act, startTool, startWorker } from "./support.ts";

const add = defineAction({
  input: z.object({ a: z.number(), b: z.number().default(1) }),
  output: z.strictObject({ sum: z.number() }),
  handler: ({ a, b }) => ({ sum: a + b }),
});

describe("POST /execute", () => {
  it("runs the action that kwargs name", async () => {
    const worker = await startTool({ actions: { add, other: act(() => 1) } });
    const answer = await worker.post("/execute", { kwargs: { action: "add", a: 2, b: 3 } });
    expect(answer).toMatchObject({ status: 200, body: { sum: 5 } });
  });

  it("runs the default action, or the only one, where none is named", async () => {
    const marked = await startTool({
      actions: { add, other: { ...act(() => "other"), default: true } },
    });
    expect((await marked.post("/execute")).body).toBe("other");
    const only = await startTool({ actions: { add } });
    expect((await only.post("/execute", { kwargs: { a: 1 } })).body).toEqual({ sum: 2 });
  });

  it("gives positional arguments to the properties in their order", async () => {
    const worker = await startTool({ actions: { add } });
    expect((await worker.post("/execute", { args: [4, 5] })).body).toEqual({ sum: 9 });
    expect((await worker.post("/execute", { args: [4], kwargs: { b: 1 } })).body).toEqual({
      sum: 5,
    });
    const twice = await worker.post("/execute", { args: [4], kwargs: { a: 1 } });
    expect(twice.error).toMatchObject({ code: "CAPABILITY_INPUT", fields_invalid: ["a"] });
    expect((await worker.post("/execute", { args: [1, 2, 3] })).status).toBe(400);
  });

  it("answers 404 for an action it does not have, also for one of Object's own", async () => {
    const worker = await startTool({ actions: { add } });
    for (const action of ["subtract", "toString", "__proto__", 7]) {
      const answer = await worker.post("/execute", { kwargs: { action } });
      expect(answer).toMatchObject({ status: 404, error: { code: "ACTION_UNKNOWN" } });
    }
  });

  it("names every bad field at once, unknown ones included", async () => {
    const worker = await startTool({ actions: { add } });
    const answer = await worker.post("/execute", { kwargs: { a: "x", b: null, c: 1 } });
    expect(answer).toMatchObject({ status: 400, error: { category: "user_input" } });
    expect(answer.error?.fields_invalid).toEqual(["a", "b", "c"]);
  });

  it("refuses an output that breaks the action's schema, naming its fields", async () => {
    const output = z.strictObject({ sum: z.number() });
    const wrong = defineAction({
      input: z.strictObject({}),
      output,
      handler: () => ({ sum: Number.NaN }),
    });
    const answer = await (await startTool({ actions: { wrong } })).post("/execute");
    expect(answer).toMatchObject({ status: 500, error: { code: "CAPABILITY_OUTPUT" } });
    expect(answer.error?.fields_invalid).toEqual(["sum"]);
  });

  it("refuses a result that JSON cannot hold, and one beyond the limit", async () => {
    const big = act(() => "x".repeat(5_000_000));
    const worker = await startTool({ actions: { big, bigint: act(() => 1n) } });
    const tooBig = await worker.post("/execute", { kwargs: { action: "big" } });
    expect(tooBig).toMatchObject({ status: 500, error: { code: "RESPONSE_TOO_LARGE" } });
    const noJson = await worker.post("/execute", { kwargs: { action: "bigint" } });
    expect(noJson.error?.code).toBe("CAPABILITY_OUTPUT");
  });

  it("answers null for a handler that returns nothing", async () => {
    const worker = await startTool({ actions: { quiet: act(() => undefined) } });
    expect(await worker.post("/execute")).toMatchObject({ status: 200, body: null });
  });

  it("gives a failure's class, category and identity", async () => {
    const fail = act(() => {
      throw new CjmError("CAPABILITY_RESOURCE", "no room", {
        resourceShortfall: { resource: "gpu_vram_mb", needed: 9, available: 1 },
      });
    });
    const worker = await startTool({ actions: { fail } });
    const envelope = { job_id: "j", capability_instance_id: "tool-2" };
    const answer = await worker.post("/execute", { envelope });
    expect(answer).toMatchObject({
      status: 500,
      error: {
        category: "resource",
        resource_shortfall: { resource: "gpu_vram_mb", needed: 9, available: 1 },
        capability_name: "tool",
        capability_instance_id: "tool-2",
      },
    });
  });

  it("does nothing before /initialize", async () => {
    const worker = startWorker({
      name: "tool",
      version: "1",
      config: z.strictObject({}),
      actions: { add },
    });
    const answer = await worker.post("/execute", { kwargs: { a: 1 } });
    expect(answer.error?.code).toBe("CAPABILITY_NOT_LOADED");
  });

  it("refuses a body that is too deep, too long or no JSON", async () => {
    const worker = await startTool({ actions: { add } });
    const raw = (body: string) => worker.app.request("/execute", { method: "POST", body });
    expect((await raw(`${"[".repeat(65)}${"]".repeat(65)}`)).status).toBe(413);
    const long = await raw(JSON.stringify({ kwargs: { text: "x".repeat(4 * 1024 * 1024) } }));
    expect(long.status).toBe(413);
    expect(await long.json()).toMatchObject({ _job_error: { code: "REQUEST_TOO_LARGE" } });
    expect((await raw("{")).status).toBe(400);
    expect((await raw('{"kwargs":7}')).status).toBe(400);
  });
});

describe("a running call", () => {
  it("has the identity of its envelope on every frame, also in code that was not given the call", async () => {
    const deep = async (): Promise<void> => {
      await tick();
      currentCall()?.log.info("deep");
    };
    const work = act(async (call) => {
      call.progress(0.5, "half");
      call.usage({ tokens: 3 });
      call.usage({ tokens: 4, pages: 1 });
      call.account("cache_hit", { key: "sha256:0" });
      call.memory({ gpuPeakMb: 12 });
      await deep();
      return { node: call.envelope.node_id };
    });
    const worker = await startTool({ actions: { work } });
    const answer = await worker.post("/execute", { envelope: { job_id: "j1", node_id: "n1" } });
    expect(answer.body).toEqual({ node: "n1" });
    expect(worker.frames).toHaveLength(6);
    expect(new Set(worker.frames.map((frame) => "job_id" in frame && frame.job_id))).toEqual(
      new Set(["j1"]),
    );
    expect(worker.of("log")[0]).toMatchObject({ level: "info", logger: "tool", message: "deep" });
    expect((await worker.get("/stats")).body).toMatchObject({ usage: { tokens: 7, pages: 1 } });
  });

  it("keeps the identities of calls apart that run at once", async () => {
    const bothRun = Promise.withResolvers<void>();
    let running = 0;
    const work = act(async () => {
      running += 1;
      if (running === 2) bothRun.resolve();
      await bothRun.promise;
      currentCall()?.log.info("here");
      return currentCall()?.envelope.job_id;
    });
    const worker = await startTool({ actions: { work } });
    const call = (job_id: string) => worker.post("/execute", { envelope: { job_id } });
    const answers = await Promise.all([call("a"), call("b")]);
    expect(answers.map(({ body }) => body)).toEqual(["a", "b"]);
    expect(worker.of("log").map((frame) => frame.job_id)).toEqual(["a", "b"]);
  });

  it("runs another action of its tool inside itself", async () => {
    const twice = act(async (call) => call.invoke("add", { a: await Promise.resolve(1), b: 1 }));
    const worker = await startTool({ actions: { add, twice: { ...twice, default: true } } });
    expect((await worker.post("/execute")).body).toEqual({ sum: 2 });
  });

  it("has a folder for files outside a host too, and the host's inside one", async () => {
    const where = act((call) => call.outputFolder);
    const worker = await startTool({ actions: { where } });
    expect((await worker.post("/execute")).body).toContain("cjm-output-");
    const folder = mkdtempSync(join(tmpdir(), "cjm-test-"));
    onTestFinished(() => {
      rmSync(folder, { recursive: true });
    });
    const output_folder = join(folder, "job", "1");
    const envelope = { output_folder };
    expect((await worker.post("/execute", { envelope })).body).toBe(output_folder);
    expect(existsSync(output_folder)).toBe(true);
  });
});

describe("cancellation", () => {
  const untilAborted = act(
    (call) =>
      new Promise((_, reject) => {
        call.progress(0, "running");
        call.signal.addEventListener("abort", () => {
          reject(new Error("stopped halfway"));
        });
      }),
  );

  it("ends only the call of the job it names, with 409", async () => {
    const worker = await startTool({ actions: { untilAborted } });
    const first = worker.post("/execute", { envelope: { job_id: "a" } });
    const second = worker.post("/execute", { envelope: { job_id: "b" } });
    while (worker.of("progress").length < 2) await tick();
    expect((await worker.post("/cancel", { job_id: "a" })).body).toMatchObject({ calls: 1 });
    expect(await first).toMatchObject({ status: 409, error: { code: "CAPABILITY_CANCELLED" } });
    expect((await worker.post("/cancel")).body).toMatchObject({ calls: 1 });
    expect((await second).status).toBe(409);
  });

  it("comes from a host that closes the connection", async () => {
    const worker = await startTool({ actions: { untilAborted } });
    const connection = new AbortController();
    const answer = worker.post("/execute", {}, connection.signal);
    while (worker.of("progress").length === 0) await tick();
    connection.abort();
    await expect(answer).resolves.toMatchObject({ status: 409 });
  });

  it("loses against a result that is there already", async () => {
    const stubborn = act(async (call) => {
      call.progress(0, "running");
      while (!call.signal.aborted) await tick();
      return "finished all the same";
    });
    const worker = await startTool({ actions: { stubborn } });
    const answer = worker.post("/execute", { envelope: { job_id: "a" } });
    while (worker.of("progress").length === 0) await tick();
    await worker.post("/cancel", { job_id: "a" });
    expect(await answer).toMatchObject({ status: 200, body: "finished all the same" });
  });

  it("is a timeout where the deadline passed", async () => {
    const worker = await startTool({ actions: { untilAborted } });
    const answer = await worker.post("/execute", { envelope: { deadline_ms: 1 } });
    expect(answer).toMatchObject({ status: 500, error: { code: "CAPABILITY_TIMEOUT" } });
  });

  it("is not what a tool's own abort is called", async () => {
    const own = act(() => AbortSignal.abort().throwIfAborted());
    const answer = await (await startTool({ actions: { own } })).post("/execute");
    expect(answer).toMatchObject({ status: 500, error: { code: "CAPABILITY_TRANSIENT" } });
  });
});
