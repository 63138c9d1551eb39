import { describe, expect, test } from "vitest";
import { CjmError } from "../../../src/errors/index.ts";
import { newDataDir, openQueue, settled, told } from "../../support/queue-host.ts";
import { forever, untilCancelled } from "../../support/fake-executor.ts";

const echo = ({ kwargs }: { kwargs: unknown }): unknown => kwargs;

describe("a job from submit to result", () => {
  test("gives its result and writes exactly the rows of the vocabulary", async () => {
    await using host = await openQueue();
    host.executor.add("tool", echo);
    const job = await host.queue.submit(
      "tool",
      { text: "secret", n: 1 },
      { action: "run", runId: "run-1", actor: "test", priority: 3 },
    );
    expect(await job.result()).toEqual({ text: "secret", n: 1 });
    const rows = await host.journal({ jobId: job.id });
    expect(told(rows)).toEqual([
      "job_submitted",
      "admission_decided",
      "state_transition pending→running",
      "state_transition running→completed",
    ]);
    expect(rows.every(({ runId, actor }) => runId === "run-1" && actor === "test")).toBe(true);
    expect(rows[0]?.payload).toEqual({ action: "run", kwarg_names: ["n", "text"], priority: 3 });
    expect(rows[1]?.payload).toEqual({
      exclusive: true,
      gpu_reserved_mb: 0,
      lanes_in_use: 1,
      stats_available: false,
    });
    const snapshot = rows[3]?.payload["job_snapshot"];
    expect(Object.keys(snapshot as object).sort()).toEqual([
      "actor",
      "capability_instance_id",
      "completed_at",
      "composition_id",
      "error",
      "id",
      "load_ms",
      "method",
      "node_id",
      "priority",
      "progress",
      "retry_count",
      "run_id",
      "started_at",
      "status",
      "status_message",
      "submitted_at",
      "task_name",
    ]);
    expect(JSON.stringify(rows)).not.toContain("secret");
  });

  test("has its row before its id is given out, and its result stored before it is announced", async () => {
    await using host = await openQueue();
    host.executor.add("tool", echo);
    const job = await host.queue.submit("tool", { n: 1 });
    expect(await host.store.getJob(job.id)).toMatchObject({ kwargs: { n: 1 } });
    await job.ended();
    expect(await host.store.getJob(job.id)).toMatchObject({
      status: "completed",
      attempt: 1,
      result: { kind: "inline", json: '{"n":1}' },
      workerSessionId: "session-1",
    });
  });

  test("carries the default run context unless it names its own", async () => {
    await using host = await openQueue();
    host.executor.add("tool", echo);
    host.queue.setDefaultRunContext({ runId: "default", actor: "host" });
    const first = await (await host.queue.submit("tool")).ended();
    const second = await (await host.queue.submit("tool", {}, { actor: "me" })).ended();
    expect([first.runId, first.actor]).toEqual(["default", "host"]);
    expect([second.runId, second.actor]).toEqual(["default", "me"]);
    expect(host.executor.calls[1]?.identity).toMatchObject({ run_id: "default", actor: "me" });
  });

  test("takes the first result and the last progress into its terminal row", async () => {
    await using host = await openQueue();
    host.executor.add("tool", ({ events }) => {
      events.progress(0.25, "a quarter");
      events.progress(0.5, "half");
      return 1;
    });
    const job = await host.queue.submit("tool");
    expect(await job.ended()).toMatchObject({ progress: 0.5, statusMessage: "half" });
    const rows = await host.journal({ jobId: job.id });
    expect(told(rows)).not.toContain("progress_changed");
    expect(rows.at(-1)?.payload["job_snapshot"]).toMatchObject({
      progress: 0.5,
      status_message: "half",
    });
  });

  test("journals what the worker reports as the worker's", async () => {
    await using host = await openQueue();
    host.executor.add("tool", ({ events }) => {
      events.account("result_saved", { path: "a.txt" });
    });
    const job = await host.queue.submit("tool");
    await job.ended();
    await settled();
    const row = (await host.journal({ jobId: job.id })).find(
      ({ eventType }) => eventType === "result_saved",
    );
    expect(row).toMatchObject({ workerReported: true, payload: { path: "a.txt" } });
  });
});

describe("what is refused at submit leaves nothing behind", () => {
  const refusals: readonly (readonly [string, () => Record<string, unknown>, object, string])[] = [
    ["a kwarg that the schema forbids", () => ({ bad: 1 }), {}, "CAPABILITY_INPUT"],
    ["a value that is no JSON", () => ({ n: 1n }), {}, "CAPABILITY_INPUT"],
    ["a priority that is no number", () => ({}), { priority: Number.NaN }, "CAPABILITY_INPUT"],
    ["a negative timeout", () => ({}), { timeoutMs: -1 }, "CAPABILITY_INPUT"],
  ];
  test.each(refusals)("%s", async (_name, kwargs, options, code) => {
    await using host = await openQueue();
    host.executor.add("tool", echo);
    await expect(host.queue.submit("tool", kwargs(), options)).rejects.toMatchObject({ code });
    expect(await host.journal()).toEqual([]);
    expect(host.queue.getStats()).toMatchObject({ pending: 0, running: 0 });
    await (await host.queue.submit("tool")).result();
  });

  test("an unknown or disabled instance", async () => {
    await using host = await openQueue();
    host.executor.add("off", { work: echo, isEnabled: false });
    await expect(host.queue.submit("none")).rejects.toMatchObject({ code: "CAPABILITY_UNKNOWN" });
    await expect(host.queue.submit("off")).rejects.toMatchObject({ code: "CAPABILITY_DISABLED" });
  });

  test("a job beyond the bound on those that wait", async () => {
    await using host = await openQueue({ maxPending: 2, scheduler: { maxLanes: 1 } });
    host.executor.add("tool", untilCancelled);
    await host.queue.submit("tool");
    await settled();
    await host.queue.submit("tool");
    await host.queue.submit("tool");
    await expect(host.queue.submit("tool")).rejects.toMatchObject({ code: "QUEUE_FULL" });
  });
});

describe("what can be asked about jobs", () => {
  test("pending in the order they will start, running, history and counts", async () => {
    await using host = await openQueue({ scheduler: { maxLanes: 1 } });
    host.executor.add("tool", async (call) => {
      if (call.kwargs["hold"] === true) await untilCancelled(call);
      return call.kwargs;
    });
    const running = await host.queue.submit("tool", { hold: true });
    const low = await host.queue.submit("tool", { name: "low" });
    const high = await host.queue.submit("tool", { name: "high" }, { priority: 5 });
    await host.executor.sent(1);
    expect(host.queue.getRunning().map(({ id }) => id)).toEqual([running.id]);
    expect(host.queue.getPending().map(({ id }) => id)).toEqual([high.id, low.id]);
    expect(host.queue.getStats()).toMatchObject({ pending: 2, running: 1 });
    await running.cancel();
    await Promise.all([low.ended(), high.ended()]);
    expect(host.queue.getHistory().map(({ id }) => id)).toEqual([low.id, high.id, running.id]);
    expect(host.queue.getHistory(1).map(({ id }) => id)).toEqual([low.id]);
    expect(host.queue.getStats()).toEqual({
      pending: 0,
      running: 0,
      completed: 2,
      failed: 0,
      cancelled: 1,
    });
  });

  test("large results leave memory before their jobs are many, and are read from the store", async () => {
    await using host = await openQueue();
    host.executor.add("tool", ({ kwargs }) => `${String(kwargs["n"])} ${"x".repeat(300 * 1024)}`);
    const jobs = [];
    for (let n = 0; n < 18; n += 1) jobs.push(await host.queue.submit("tool", { n }));
    await Promise.all(jobs.map((job) => job.ended()));
    expect(host.queue.getHistory()).toHaveLength(16);
    expect(host.queue.peek(jobs[0]?.id ?? "")).toBeUndefined();
    const results = await Promise.all(jobs.map((job) => job.result()));
    expect(results.map((result) => String(result).split(" ")[0])).toEqual(
      jobs.map((_, n) => String(n)),
    );
  });

  test("a job that left memory is read from the store, result included", async () => {
    await using host = await openQueue({ history: 2 });
    host.executor.add("tool", echo);
    const ids: string[] = [];
    for (let n = 0; n < 4; n += 1) {
      const job = await host.queue.submit("tool", { n });
      await job.ended();
      ids.push(job.id);
    }
    expect(host.queue.getHistory()).toHaveLength(2);
    expect(host.queue.peek(ids[0] ?? "")).toBeUndefined();
    expect(await host.queue.getJob(ids[0] ?? "")).toMatchObject({ result: { n: 0 } });
    expect(await host.queue.resultOf(ids[0] ?? "")).toEqual({ n: 0 });
    const rows = await host.queue.getHistoryFromJournal(3);
    expect(rows.map(({ jobId }) => jobId)).toEqual(ids.toReversed().slice(0, 3));
  });

  test("an unknown job is named as such", async () => {
    await using host = await openQueue();
    expect(await host.queue.getJob("nope")).toBeUndefined();
    await expect(host.queue.waitForJob("nope")).rejects.toMatchObject({ code: "JOB_UNKNOWN" });
    expect(await host.queue.cancel("nope")).toBe(false);
    expect(await host.queue.reorder("nope", 1)).toBe(false);
  });

  test("a wait can be given up without ending the job", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const job = await host.queue.submit("tool");
    const stop = new AbortController();
    const waiting = host.queue.waitForJob(job.id, stop.signal);
    stop.abort(new CjmError("CAPABILITY_TIMEOUT", "long enough"));
    await expect(waiting).rejects.toThrow("long enough");
    expect(host.queue.peek(job.id)?.status).toBe("running");
  });

  test("what a running job's worker holds, and a snapshot event", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    const events = host.queue.allEvents();
    const next = (async () => {
      for await (const event of events) if (event.type === "resource_snapshot") return event;
      return undefined;
    })();
    await settled();
    expect(host.queue.getResourceSnapshot(job.id)).toBeNull();
    const later = performance.now() + 2_000;
    while (performance.now() < later && host.queue.getResourceSnapshot(job.id) === null) {
      host.probe.set({ instances: [{ instanceId: "tool", vramMb: 7, ramMb: 9 }] });
    }
    expect(host.queue.getResourceSnapshot(job.id)).toMatchObject({ vramMb: 7, ramMb: 9 });
    const poll = setInterval(() => {
      host.probe.set({});
    }, 50);
    try {
      expect((await next)?.payload["snapshot"]).toMatchObject({ instanceId: "tool", vramMb: 7 });
    } finally {
      clearInterval(poll);
    }
    expect(told(await host.journal())).not.toContain("resource_snapshot");
  });
});

describe("stopping the host", () => {
  test("lets running jobs end within the limit and takes no new ones", async () => {
    await using host = await openQueue();
    const finish = Promise.withResolvers<void>();
    host.executor.add("tool", async () => {
      await finish.promise;
      return "done";
    });
    const job = await host.queue.submit("tool");
    const waiting = await host.queue.submit("tool");
    await host.executor.sent(1);
    const stopped = host.queue.stop(10_000);
    await expect(host.queue.submit("tool")).rejects.toMatchObject({ code: "HOST_STOPPING" });
    finish.resolve();
    expect(await stopped).toBe(true);
    expect(await job.result()).toBe("done");
    await expect(waiting.result()).rejects.toMatchObject({ code: "HOST_STOPPING" });
    expect(await host.store.getJob(waiting.id)).toMatchObject({ status: "pending" });
    expect(host.executor.calls).toHaveLength(1);
  });

  test("leaves what does not end resumable, and tells whoever waits", async () => {
    const dataDir = await newDataDir();
    let id = "";
    {
      await using host = await openQueue({ dataDir });
      host.executor.add("tool", forever);
      const job = await host.queue.submit("tool");
      id = job.id;
      await host.executor.sent(1);
      const result = job.result();
      result.catch(() => undefined);
      expect(await host.queue.stop(10)).toBe(false);
      await expect(result).rejects.toMatchObject({ code: "HOST_STOPPING" });
      host.executor.crash("tool");
      await settled();
      expect(await host.store.getJob(id)).toMatchObject({ status: "running", attempt: 1 });
    }
    await using host = await openQueue({ dataDir });
    host.executor.add("tool", () => "again");
    expect(await host.queue.resumable()).toEqual([id]);
    expect(await host.queue.resume(id)).toBe(true);
    expect(await host.queue.resultOf(id)).toBe("again");
    expect(await host.queue.getJob(id)).toMatchObject({ attempt: 2, retryCount: 0 });
    expect(told(await host.journal({ jobId: id })).slice(3)).toEqual([
      "state_transition running→pending",
      "admission_decided",
      "state_transition pending→running",
      "state_transition running→completed",
    ]);
    expect(await host.queue.resume(id)).toBe(false);
  });
});
