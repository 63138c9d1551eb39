import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { CjmError } from "../../../src/errors/index.ts";
import { openQueue, told } from "../../support/queue-host.ts";
import { type FakeCall, forever, untilCancelled } from "../../support/fake-executor.ts";

/** Fails the first `times` attempts with `error`, then answers with the attempt's number. */
function failing(times: number, error: (call: FakeCall) => Error) {
  return (call: FakeCall): unknown => {
    if (call.attempt <= times) throw error(call);
    return call.attempt;
  };
}
const transient = (): Error => new CjmError("CAPABILITY_TRANSIENT", "come back later");

beforeEach(() => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"], shouldAdvanceTime: true });
  vi.setTimerTickMode("nextTimerAsync");
});
afterEach(() => {
  vi.useRealTimers();
});

describe("a failure that may pass", () => {
  test("is repeated after a delay, each attempt journaled with its own session", async () => {
    await using host = await openQueue();
    host.executor.add("tool", failing(1, transient));
    const job = await host.queue.submit("tool");
    expect(await job.result()).toBe(2);
    const rows = await host.journal({ jobId: job.id });
    expect(told(rows)).toEqual([
      "job_submitted",
      "admission_decided",
      "state_transition pending→running",
      "retry_started",
      "state_transition running→pending",
      "admission_decided",
      "state_transition pending→running",
      "state_transition running→completed",
    ]);
    expect(rows[3]).toMatchObject({
      workerSessionId: "session-1",
      payload: {
        attempt: 1,
        exception_category: "transient",
        exception_repr: "CjmError: come back later",
      },
    });
    expect(Number(rows[3]?.payload["delay_ms"])).toBeGreaterThanOrEqual(250);
    expect(await job.ended()).toMatchObject({ attempt: 2, retryCount: 1, error: null });
  });

  test("waits as long as the worker asks", async () => {
    await using host = await openQueue();
    const busy = (): Error =>
      new CjmError("CAPABILITY_TRANSIENT", "busy", { retryAfterSeconds: 9 });
    host.executor.add("tool", failing(1, busy));
    const job = await host.queue.submit("tool");
    await job.result();
    const row = (await host.journal({ jobId: job.id })).find(
      (e) => e.eventType === "retry_started",
    );
    expect(row?.payload["delay_ms"]).toBe(9_000);
  });

  test("fails for good after the last attempt, with the last error and one terminal row", async () => {
    await using host = await openQueue({ maxRetries: 2 });
    host.executor.add(
      "tool",
      failing(9, ({ attempt }) => new CjmError("CAPABILITY_TRANSIENT", `no ${attempt}`)),
    );
    const job = await host.queue.submit("tool");
    expect(await job.ended()).toMatchObject({
      status: "failed",
      attempt: 3,
      retryCount: 2,
      error: { category: "transient", message: "no 3" },
    });
    const terminal = told(await host.journal({ jobId: job.id })).filter((row) =>
      /→(?:completed|failed|cancelled)$/u.test(row),
    );
    expect(terminal).toEqual(["state_transition running→failed"]);
  });

  test("is repeated as often as the job says, not the queue", async () => {
    await using host = await openQueue({ maxRetries: 5 });
    host.executor.add("tool", failing(1, transient));
    const job = await host.queue.submit("tool", {}, { maxRetries: 0 });
    expect((await job.ended()).attempt).toBe(1);
  });

  test("is not repeated when the job is cancelled while it waits", async () => {
    await using host = await openQueue();
    const busy = (): Error =>
      new CjmError("CAPABILITY_TRANSIENT", "busy", { retryAfterSeconds: 3_000 });
    host.executor.add("tool", failing(1, busy));
    vi.setTimerTickMode("manual");
    const job = await host.queue.submit("tool");
    for await (const { type, payload } of job.events()) {
      if (type === "state_transition" && payload["to"] === "pending") break;
    }
    expect(host.queue.getPending().map(({ id }) => id)).toEqual([job.id]);
    expect(await job.cancel()).toBe(true);
    expect((await job.ended()).status).toBe("cancelled");
    expect(host.executor.calls).toHaveLength(1);
  });
});

describe("a failure that will not pass", () => {
  test.each([
    ["user_input", new CjmError("CAPABILITY_INPUT", "wrong")],
    ["fatal", new CjmError("CAPABILITY_ERROR", "broken")],
    ["fatal", new Error("a bug of the tool")],
  ])("%s is never repeated", async (category, error) => {
    await using host = await openQueue({ maxRetries: 3 });
    host.executor.add(
      "tool",
      failing(9, () => error),
    );
    const job = await host.queue.submit("tool");
    expect(await job.ended()).toMatchObject({ status: "failed", attempt: 1, error: { category } });
    await expect(job.result()).rejects.toMatchObject({ category, message: error.message });
    expect(host.executor.ended).toEqual([]);
  });
});

describe("a failure for want of a resource", () => {
  test("ends the worker and repeats once in a new one", async () => {
    await using host = await openQueue();
    host.executor.add(
      "tool",
      failing(1, () => new CjmError("CAPABILITY_RESOURCE", "CUDA out of memory")),
    );
    const job = await host.queue.submit("tool");
    expect(await job.result()).toBe(2);
    expect(host.executor.ended).toHaveLength(1);
    expect(await job.ended()).toMatchObject({ workerSessionId: "session-2", retryCount: 1 });
  });

  test("raises what the key is known to need at least, never its peak", async () => {
    await using host = await openQueue();
    host.executor.add("tool", (call) => {
      if (call.attempt > 1) return "ok";
      const peaks = { gpuMb: { g: 7_000 }, hostMb: 10, cpuPercent: null, isAlone: true };
      call.events.measured(peaks);
      throw new CjmError("CAPABILITY_RESOURCE", "CUDA out of memory");
    });
    const job = await host.queue.submit("tool");
    await job.result();
    const [profile] = await host.store.listProfiles();
    expect(profile?.body).toMatchObject({ vramLowerBoundMb: 7_000, vramPeakMb: { count: 0 } });
  });

  test("a worker that died under the call counts as one of these", async () => {
    await using host = await openQueue();
    host.executor.add("tool", (call) => {
      if (call.attempt > 1) return "ok";
      host.executor.crash("tool");
      return forever();
    });
    const job = await host.queue.submit("tool");
    expect(await job.result()).toBe("ok");
    expect(await job.ended()).toMatchObject({ attempt: 2, retryCount: 1 });
  });

  test("more VRAM than its limit ends it at once and for good", async () => {
    await using host = await openQueue();
    host.executor.add("tool", untilCancelled);
    const gpus = [{ uuid: "g", totalMb: 24_000, freeMb: 20_000 }];
    host.probe.set({ gpus, gpuModel: "test" });
    const job = await host.queue.submit("tool", {}, { vramLimitMb: 4_000 });
    await host.executor.sent(1);
    host.probe.set({ instances: [{ instanceId: "tool", vramMb: 3_900, ramMb: 1 }] });
    expect(host.queue.peek(job.id)?.status).toBe("running");
    host.probe.set({ instances: [{ instanceId: "tool", vramMb: 4_100, ramMb: 1 }] });
    expect(await job.ended()).toMatchObject({
      status: "failed",
      attempt: 1,
      error: { code: "RESOURCE_LIMIT_EXCEEDED", category: "resource" },
    });
    expect(
      told(await host.journal({ jobId: job.id })).filter((row) => row.startsWith("cancel_phase")),
    ).toEqual([
      "cancel_phase_changed null→force",
      "cancel_phase_changed force→reloading",
      "cancel_phase_changed reloading→completed",
    ]);
  });
});

describe("a worker that is ended for another job's sake", () => {
  test("costs its other jobs no retry", async () => {
    await using host = await openQueue({
      maxRetries: 0,
      scheduler: { maxLanes: 4, admission: "permissive" },
    });
    host.executor.add("tool", {
      maxConcurrentRequests: 2,
      work: (call) => (call.attempt > 1 ? "ok" : untilCancelled(call)),
    });
    const job = await host.queue.submit("tool");
    await host.executor.sent(1);
    await host.executor.end("tool", "for another");
    expect(await job.result()).toBe("ok");
    expect(await job.ended()).toMatchObject({ attempt: 2, retryCount: 0 });
  });
});
