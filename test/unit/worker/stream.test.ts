import { setImmediate as tick } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { defineAction, z, type Call } from "cjm-substrate/worker";
import { act, nothing, startTool, type TestWorker } from "./support.ts";

function streaming(handler: (call: Call) => AsyncIterable<number>) {
  return defineAction({
    input: nothing,
    output: z.number(),
    streaming: true,
    handler: (_, call) => handler(call),
  });
}

async function open(worker: TestWorker, body: unknown = {}): Promise<Response> {
  return worker.app.request("/execute_stream", { method: "POST", body: JSON.stringify(body) });
}

async function lines(response: Response): Promise<unknown[]> {
  const text = await response.text();
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as unknown);
}

describe("POST /execute_stream", () => {
  it("sends each chunk as a line", async () => {
    const count = streaming(async function* count() {
      yield 1;
      await tick();
      yield 2;
    });
    const response = await open(await startTool({ actions: { count } }));
    expect(response.headers.get("content-type")).toBe("application/x-ndjson");
    expect(await lines(response)).toEqual([1, 2]);
  });

  it("sends the result of an action that answers once as its only chunk", async () => {
    const response = await open(await startTool({ actions: { once: act(() => ({ x: 1 })) } }));
    expect(await lines(response)).toEqual([{ x: 1 }]);
  });

  it("ends with the failure as last line", async () => {
    const fail = streaming(async function* fail() {
      yield await Promise.resolve(1);
      throw new Error("lost");
    });
    const [first, last] = await lines(await open(await startTool({ actions: { fail } })));
    expect(first).toBe(1);
    expect(last).toMatchObject({ _job_error: { message: "lost", category: "fatal" } });
  });

  it("holds each chunk to the schema", async () => {
    const wrong = streaming(async function* wrong() {
      yield await Promise.resolve("text" as unknown as number);
    });
    const [last] = await lines(await open(await startTool({ actions: { wrong } })));
    expect(last).toMatchObject({ _job_error: { code: "CAPABILITY_OUTPUT" } });
  });

  it("refuses wrong input with its status, before it streams", async () => {
    const count = streaming(async function* none() {});
    const response = await open(await startTool({ actions: { count } }), { kwargs: { x: 1 } });
    expect(response.status).toBe(400);
  });

  it("is not what /execute runs", async () => {
    const count = streaming(async function* none() {});
    const answer = await (await startTool({ actions: { count } })).post("/execute");
    expect(answer.error?.code).toBe("METHOD_NOT_SUPPORTED");
  });

  it("produces only as fast as it is read", async () => {
    let produced = 0;
    const count = streaming(async function* count() {
      for (;;) yield await Promise.resolve((produced += 1));
    });
    const response = await open(await startTool({ actions: { count } }));
    const reader = response.body?.getReader();
    await reader?.read();
    await tick();
    expect(produced).toBeLessThanOrEqual(2);
    await reader?.cancel();
  });

  it("is cancelled by leaving, and runs the generator's finally", async () => {
    const ended = Promise.withResolvers<boolean>();
    const count = streaming(async function* count(call) {
      try {
        for (;;) yield await Promise.resolve(1);
      } finally {
        ended.resolve(call.signal.aborted);
      }
    });
    const worker = await startTool({ actions: { count } });
    const reader = (await open(worker)).body?.getReader();
    await reader?.read();
    await reader?.cancel();
    expect(await ended.promise).toBe(true);
    expect((await worker.post("/cancel")).body).toMatchObject({ calls: 0 });
  });

  it("ends with a cancel as last line", async () => {
    const wait = streaming(async function* wait(call) {
      yield 1;
      await new Promise((resolve) => {
        call.signal.addEventListener("abort", resolve);
      });
      call.signal.throwIfAborted();
    });
    const worker = await startTool({ actions: { wait } });
    const response = await open(worker, { envelope: { job_id: "s" } });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    expect((await reader?.read())?.value).toBe("1\n");
    const last = reader?.read();
    await worker.post("/cancel", { job_id: "s" });
    expect(JSON.parse((await last)?.value ?? "")).toMatchObject({
      _job_error: { code: "CAPABILITY_CANCELLED" },
    });
  });
});
