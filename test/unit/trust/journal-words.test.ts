import { describe, expect, test } from "vitest";
import { type ActiveCall, addUsage } from "../../../src/capability/active-calls.ts";
import { ACCOUNTS_PER_ATTEMPT, boundedAccounts } from "../../../src/queue/worker-accounts.ts";
import { openQueue } from "../../support/queue-host.ts";

describe("what a worker adds to the journal", () => {
  test("is never in the host's own words", () => {
    const rows: [string, object][] = [];
    const account = boundedAccounts((...row) => rows.push(row));
    account("state_transition", { to: "completed" });
    account("worker_died", { returncode: 0 });
    account("task_account", { ok: true });
    account("of_a_tool", {});
    expect(rows).toEqual([
      ["worker_account", { event_type: "state_transition", to: "completed" }],
      ["worker_account", { event_type: "worker_died", returncode: 0 }],
      ["task_account", { ok: true }],
      ["of_a_tool", {}],
    ]);
  });

  test("ends at a limit, which is told once", () => {
    const rows: string[] = [];
    const account = boundedAccounts((eventType) => rows.push(eventType));
    for (let n = 0; n < ACCOUNTS_PER_ATTEMPT * 3; n += 1) account("x", {});
    expect(rows).toHaveLength(ACCOUNTS_PER_ATTEMPT + 1);
    expect(rows.at(-1)).toBe("worker_account");
  });

  test("cannot make a follower think that the job is over", async () => {
    await using host = await openQueue();
    const finish = Promise.withResolvers<string>();
    host.executor.add("tool", async (call) => {
      call.events.account("state_transition", { from: "running", to: "completed" });
      return await finish.promise;
    });
    const job = await host.queue.submit("tool");
    const types: string[] = [];
    for await (const event of host.queue.events(job.id)) {
      types.push(event.type);
      if (event.type === "worker_account") finish.resolve("done");
    }
    expect(types).toContain("worker_account");
    expect(types.filter((type) => type === "state_transition").length).toBe(2);
    expect(await job.result()).toBe("done");
  });
});

test("a call's usage has a bounded number of finite units", () => {
  const call = { usage: {} } as unknown as ActiveCall;
  for (let n = 0; n < 1_000; n += 1) addUsage(call, { [`unit ${n}`]: 1 });
  addUsage(call, { "unit 0": 1e308 });
  addUsage(call, { "unit 0": 1e308 });
  addUsage(call, JSON.parse('{"__proto__":5}') as Record<string, number>);
  expect(Object.keys(call.usage)).toHaveLength(100);
  expect(call.usage["unit 0"]).toBe(1e308 + 1);
  expect(Object.getPrototypeOf(call.usage)).toBe(Object.prototype);
});

test("the chunks of a stream that nobody reads are a bounded result", async () => {
  await using host = await openQueue();
  host.executor.add("tool", {
    isStreaming: true,
    work: async ({ events }) => {
      const chunk = "x".repeat(64 * 1024);
      for (let n = 0; n < 1_000; n += 1) await events.chunk(chunk);
      return null;
    },
  });
  const job = await host.queue.submit("tool");
  await expect(job.result()).rejects.toMatchObject({ code: "RESPONSE_TOO_LARGE" });
});
