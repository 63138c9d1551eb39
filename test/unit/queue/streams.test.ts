import { describe, expect, test } from "vitest";
import { CjmError } from "../../../src/errors/index.ts";
import { openQueue, settled } from "../../support/queue-host.ts";
import { forever, untilCancelled, type FakeCall } from "../../support/fake-executor.ts";

function counting(to: number, sent: { count: number } = { count: 0 }) {
  return async (call: FakeCall): Promise<unknown> => {
    for (let n = 0; n < to; n += 1) {
      if (call.signal.aborted) throw new CjmError("CAPABILITY_CANCELLED", "stopped");
      await call.events.chunk(n);
      sent.count = n + 1;
    }
    return { chunks: to };
  };
}

describe("a streaming job", () => {
  test("gives its chunks in order and then ends", async () => {
    await using host = await openQueue();
    host.executor.add("tool", { work: counting(200), isStreaming: true });
    const job = await host.queue.submitStream("tool");
    const chunks: unknown[] = [];
    for await (const chunk of job) chunks.push(chunk);
    expect(chunks).toEqual(Array.from({ length: 200 }, (_, n) => n));
    expect(await job.ended()).toMatchObject({ status: "completed", result: { chunks: 200 } });
  });

  test("cannot be read from the handle of a call that was submitted as none", async () => {
    await using host = await openQueue();
    host.executor.add("tool", { work: counting(2), isStreaming: true });
    const job = await host.queue.submit("tool");
    await expect(job[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      code: "METHOD_NOT_SUPPORTED",
    });
    expect(await job.result()).toEqual([0, 1]);
  });

  test("holds its worker back when nobody reads", async () => {
    await using host = await openQueue();
    const sent = { count: 0 };
    host.executor.add("tool", { work: counting(500, sent), isStreaming: true });
    const job = await host.queue.submitStream("tool");
    await host.executor.sent(1);
    await settled();
    expect(sent.count).toBe(64);
    let read = 0;
    for await (const _ of job) read += 1;
    expect(read).toBe(500);
  });

  test("is cancelled by leaving the loop, and frees its lane", async () => {
    await using host = await openQueue({ scheduler: { maxLanes: 1 } });
    host.executor.add("tool", { work: counting(1_000), isStreaming: true });
    const job = await host.queue.submitStream("tool");
    for await (const chunk of job) if (chunk === 3) break;
    expect((await job.ended()).status).toBe("cancelled");
    host.executor.add("other", () => "next");
    expect(await (await host.queue.submit("other")).result()).toBe("next");
  });

  test("throws the job's error after the chunks that came", async () => {
    await using host = await openQueue();
    host.executor.add("tool", {
      isStreaming: true,
      work: async ({ events }) => {
        await events.chunk("one");
        throw new CjmError("CAPABILITY_ERROR", "broke off");
      },
    });
    const job = await host.queue.submitStream("tool");
    const chunks: unknown[] = [];
    const reading = (async () => {
      for await (const chunk of job) chunks.push(chunk);
    })();
    await expect(reading).rejects.toThrow("broke off");
    expect(chunks).toEqual(["one"]);
  });

  test("is not repeated once a chunk was given out", async () => {
    await using host = await openQueue();
    host.executor.add("tool", {
      isStreaming: true,
      work: async ({ events }) => {
        await events.chunk("one");
        throw new CjmError("CAPABILITY_TRANSIENT", "come back");
      },
    });
    const job = await host.queue.submitStream("tool");
    const reading = (async () => {
      for await (const _ of job) await settled();
    })();
    await expect(reading).rejects.toThrow("come back");
    expect(await job.ended()).toMatchObject({ status: "failed", attempt: 1 });
  });

  test("ends its reader when it is cancelled elsewhere, or its host stops", async () => {
    await using host = await openQueue({ cancelTimeoutMs: 10 });
    host.executor.add("tool", { work: untilCancelled, isStreaming: true });
    const job = await host.queue.submitStream("tool");
    await host.executor.sent(1);
    const reading = (async () => {
      for await (const _ of job);
    })();
    reading.catch(() => undefined);
    await job.cancel();
    await expect(reading).rejects.toMatchObject({ code: "CAPABILITY_CANCELLED" });
    host.executor.add("deaf", { work: forever, isStreaming: true });
    const other = await host.queue.submitStream("deaf");
    const stopped = (async () => {
      for await (const _ of other);
    })();
    stopped.catch(() => undefined);
    await host.queue.stop(0);
    await expect(stopped).rejects.toMatchObject({ code: "HOST_STOPPING" });
  });

  test("of an action that does not stream is refused; submitted plainly, its chunks are the result", async () => {
    await using host = await openQueue();
    host.executor.add("plain", () => 1).add("tool", { work: counting(3), isStreaming: true });
    await expect(host.queue.submitStream("plain")).rejects.toMatchObject({
      code: "METHOD_NOT_SUPPORTED",
    });
    expect(await (await host.queue.submit("tool")).result()).toEqual([0, 1, 2]);
  });
});
