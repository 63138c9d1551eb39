import { describe, expect, test } from "vitest";
import { CjmError } from "../../../src/errors/index.ts";
import { openQueue, type QueueHost, told } from "../../support/queue-host.ts";
import { forever, untilCancelled } from "../../support/fake-executor.ts";

async function phases(host: QueueHost, jobId: string): Promise<string[]> {
  return told(await host.journal({ jobId }))
    .filter((row) => row.startsWith("cancel_phase_changed"))
    .map((row) => row.split(" ")[1] ?? "");
}
const SHARED = { maxLanes: 4, admission: "permissive" } as const;

describe("cancelling", () => {
  test("a pending job leaves at once, without running", async () => {
    await using host = await openQueue({ scheduler: { maxLanes: 1 } });
    host.executor.add("tool", untilCancelled);
    await host.queue.submit("tool");
    const job = await host.queue.submit("tool");
    expect(await job.cancel()).toBe(true);
    expect(await job.ended()).toMatchObject({ status: "cancelled", attempt: 0 });
    await expect(job.result()).rejects.toMatchObject({ code: "CAPABILITY_CANCELLED" });
    expect(told(await host.journal({ jobId: job.id })).at(-1)).toBe(
      "state_transition pending→cancelled",
    );
    expect(await job.cancel()).toBe(false);
  });

  test("a running job is asked first, and its worker lives on", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    expect(await job.cancel()).toBe(true);
    expect((await job.ended()).status).toBe("cancelled");
    expect(await phases(host, job.id)).toEqual(["null→cooperative", "cooperative→completed"]);
    expect(host.executor.ended).toEqual([]);
    expect(await host.store.getJob(job.id)).toMatchObject({ cancelPhase: "completed" });
  });

  test("one that does not listen is ended with its worker after the timeout", async () => {
    await using host = await openQueue({ cancelTimeoutMs: 20 });
    host.executor.add("tool", forever);
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    await job.cancel();
    expect((await job.ended()).status).toBe("cancelled");
    expect(await phases(host, job.id)).toEqual([
      "null→cooperative",
      "cooperative→force",
      "force→reloading",
      "reloading→completed",
    ]);
    expect(host.executor.ended).toHaveLength(1);
  });

  test("the next job of that instance gets a new worker", async () => {
    await using host = await openQueue({ cancelTimeoutMs: 20 });
    host.executor.add("tool", ({ kwargs }) => (kwargs["hang"] === true ? forever() : "ok"));
    const first = await host.queue.submit("tool", { hang: true });
    await host.executor.sent(1);
    await first.cancel();
    const second = await host.queue.submit("tool");
    expect(await second.result()).toBe("ok");
    expect((await second.ended()).workerSessionId).toBe("session-2");
  });

  test("spares a worker that serves another job until that one is done", async () => {
    await using host = await openQueue({ cancelTimeoutMs: 20, scheduler: SHARED });
    const finish = Promise.withResolvers<string>();
    host.executor.add("tool", {
      maxConcurrentRequests: 2,
      work: ({ kwargs }) => (kwargs["deaf"] === true ? forever() : finish.promise),
    });
    const deaf = await host.queue.submit("tool", { deaf: true });
    const good = await host.queue.submit("tool");
    host.executor.add("lonely", forever);
    const later = await host.queue.submit("lonely");
    await host.executor.sent(3);
    await deaf.cancel();
    await later.cancel();
    // The patience with the first ends before that with the second.
    await later.ended();
    expect(host.executor.ended.map(({ instanceId }) => instanceId)).toEqual(["lonely"]);
    finish.resolve("kept");
    expect(await good.result()).toBe("kept");
    expect((await deaf.ended()).status).toBe("cancelled");
    expect(host.executor.ended).toHaveLength(2);
  });

  test("ends a shared worker at the deadline all the same, and repeats what else it served", async () => {
    await using host = await openQueue({ cancelTimeoutMs: 10, maxRetries: 0, scheduler: SHARED });
    host.executor.add("tool", {
      maxConcurrentRequests: 2,
      work: ({ kwargs, attempt }) =>
        kwargs["deaf"] !== true && attempt > 1 ? "repeated" : forever(),
    });
    const deaf = await host.queue.submit("tool", { deaf: true });
    const good = await host.queue.submit("tool");
    await host.executor.sent(2);
    await deaf.cancel();
    expect(await good.result()).toBe("repeated");
    expect(await good.ended()).toMatchObject({ attempt: 2, retryCount: 0 });
    expect((await deaf.ended()).status).toBe("cancelled");
    expect(told(await host.journal({ jobId: good.id }))).toContain("retry_started");
  });

  test("a result that was already computed wins", async () => {
    await using host = await openQueue();
    const finish = Promise.withResolvers<string>();
    host.executor.add("tool", () => finish.promise);
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    await job.cancel();
    finish.resolve("too late to stop");
    expect(await job.result()).toBe("too late to stop");
    expect(await phases(host, job.id)).toEqual(["null→cooperative", "cooperative→completed"]);
  });

  test("twice is once", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    await Promise.all([job.cancel(), job.cancel()]);
    await job.ended();
    expect(await phases(host, job.id)).toEqual(["null→cooperative", "cooperative→completed"]);
  });

  test("while the worker starts, the job does not run", async () => {
    await using host = await openQueue();
    host.executor.add("tool", () => "ran");
    const loading = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    host.executor.onLoad = async () => {
      asked.resolve();
      await loading.promise;
    };
    const job = await host.queue.submit("tool");
    await asked.promise;
    await job.cancel();
    loading.resolve();
    expect((await job.ended()).status).toBe("cancelled");
    expect(host.executor.calls).toEqual([]);
  });

  test("in the same turn as the submit never runs it to the end", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const job = await host.queue.submit("tool");
    const cancelled = job.cancel();
    expect(await cancelled).toBe(true);
    expect((await job.ended()).status).toBe("cancelled");
  });
});

describe("a deadline", () => {
  test("ends a call that takes longer, as transient, and the retry may succeed", async () => {
    await using host = await openQueue();
    host.executor.add("tool", (call) => (call.attempt > 1 ? "ok" : untilCancelled(call)));
    const job = await host.queue.submit("tool", {}, { timeoutMs: 15 });
    expect(await job.result()).toBe("ok");
    const rows = await host.journal({ jobId: job.id });
    const retry = rows.find(({ eventType }) => eventType === "retry_started");
    expect(retry?.payload).toMatchObject({ code: "CAPABILITY_TIMEOUT", attempt: 1 });
    expect(await job.ended()).toMatchObject({ cancelPhase: null, retryCount: 1 });
  });

  test("fails the job when no retry is left, by force if it must", async () => {
    await using host = await openQueue({ cancelTimeoutMs: 15 });
    host.executor.add("tool", forever);
    const job = await host.queue.submit("tool", {}, { timeoutMs: 15, maxRetries: 0 });
    expect(await job.ended()).toMatchObject({
      status: "failed",
      error: { code: "CAPABILITY_TIMEOUT", category: "transient" },
    });
    expect(await phases(host, job.id)).toEqual([
      "null→cooperative",
      "cooperative→force",
      "force→reloading",
      "reloading→completed",
    ]);
  });

  test("does not count the time the worker takes to start", async () => {
    await using host = await openQueue();
    host.executor.add("tool", () => "ok");
    host.executor.add("hung", untilCancelled);
    const loaded = Promise.withResolvers<void>();
    host.executor.onLoad = (id) => (id === "tool" ? loaded.promise : Promise.resolve());
    const job = await host.queue.submit("tool", {}, { timeoutMs: 20, maxRetries: 0 });
    const hung = await host.queue.submit("hung", {}, { timeoutMs: 20, maxRetries: 0 });
    expect((await hung.ended()).status).toBe("failed");
    loaded.resolve();
    expect(await job.result()).toBe("ok");
  });

  test("a cancel after it makes the job cancelled, not failed", async () => {
    await using host = await openQueue();
    const fail = Promise.withResolvers<never>();
    host.executor.add("tool", () => fail.promise);
    const job = await host.queue.submit("tool", {}, { timeoutMs: 5 });
    await host.executor.sent(1);
    for await (const { type } of job.events()) if (type === "cancel_phase_changed") break;
    await job.cancel();
    fail.reject(new CjmError("CAPABILITY_CANCELLED", "stopped"));
    expect((await job.ended()).status).toBe("cancelled");
  });
});

describe("priorities", () => {
  test("the most urgent goes first, equals in the order they came, and reorder counts", async () => {
    await using host = await openQueue({ scheduler: { maxLanes: 1 } });
    const finish = Promise.withResolvers<void>();
    host.executor.add("tool", async ({ kwargs }) => {
      if (kwargs["n"] === 0) await finish.promise;
    });
    const jobs = [];
    for (const [n, priority] of [0, 0, 0, 5, 0].entries()) {
      jobs.push(await host.queue.submit("tool", { n }, { priority }));
    }
    expect(await host.queue.reorder(jobs[4]?.id ?? "", 9)).toBe(true);
    expect(await host.queue.reorder(jobs[0]?.id ?? "", 9)).toBe(false);
    finish.resolve();
    await Promise.all(jobs.map((job) => job.ended()));
    expect(host.executor.calls.map(({ kwargs }) => kwargs["n"])).toEqual([0, 4, 3, 1, 2]);
    expect(await host.store.getJob(jobs[4]?.id ?? "")).toMatchObject({ priority: 9 });
  });
});
