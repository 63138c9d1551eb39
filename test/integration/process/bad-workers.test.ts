import { describe, expect, test } from "vitest";
import { z } from "zod";
import { Client, request } from "undici";
import { type WorkerSpec, WorkerConnection } from "../../../src/process/index.ts";
import { statsSchema, statusReplySchema } from "../../../src/protocol/index.ts";
import { call, containing, fixtureCommand, gone, population, Workbench } from "./support.ts";

/** Starts a worker that must not come up; answers with what `start` threw. */
async function failure(
  bench: Workbench,
  capability: string,
  command: readonly string[],
  overrides: Partial<WorkerSpec> = {},
): Promise<unknown> {
  const spec = bench.spec(capability, command, overrides);
  return await WorkerConnection.start(spec, bench.recorder).then(
    async (connection) => {
      await connection.kill();
      throw new Error("the worker came up");
    },
    (error: unknown) => error,
  );
}

describe("a worker that does not come up", () => {
  test("and dies at once is a fatal error with its exit code and its last words", async () => {
    await using bench = await Workbench.create();
    expect(await failure(bench, "crash", fixtureCommand("crash-on-start"))).toMatchObject({
      code: "WORKER_EXITED",
      category: "fatal",
      message: 'Worker of "crash" ended with code 3 before it was ready: no module named torch',
      details: { code: 3, signal: null, isEndedByHost: false },
    });
  });

  test("and says nothing is ended when its time is up", async () => {
    await using bench = await Workbench.create();
    const error = await failure(bench, "silent", fixtureCommand("never-ready"), {
      startTimeoutMs: 200,
    });
    expect(error).toMatchObject({ code: "WORKER_START_TIMEOUT", category: "transient" });
  });

  test("and whose start is called off by the caller throws the caller's reason", async () => {
    await using bench = await Workbench.create();
    const stop = new AbortController();
    const starting = WorkerConnection.start(
      bench.spec("silent", fixtureCommand("never-ready")),
      bench.recorder,
      stop.signal,
    );
    starting.catch(() => undefined);
    await bench.recorder.until(() => bench.recorder.lines.length > 0);
    stop.abort(new Error("not wanted any more"));
    await expect(starting).rejects.toThrow("not wanted any more");
  });

  test("because its program does not exist is not installed", async () => {
    await using bench = await Workbench.create();
    expect(
      await failure(bench, "nobody", ["/nowhere/no-such-program"], { cage: "group" }),
    ).toMatchObject({ code: "CAPABILITY_NOT_INSTALLED" });
  });

  test("because it speaks another protocol is refused with both versions", async () => {
    await using bench = await Workbench.create();
    expect(await failure(bench, "future", fixtureCommand("old-protocol"))).toMatchObject({
      code: "WORKER_HANDSHAKE",
      category: "fatal",
      message: 'Worker of "future" speaks protocol 99; this host speaks 1',
    });
  });

  test("because it is another capability than its manifest says is refused with both names", async () => {
    await using bench = await Workbench.create();
    expect(await failure(bench, "expected", fixtureCommand("wrong-name"))).toMatchObject({
      code: "WORKER_HANDSHAKE",
      message: 'Worker says it is "impostor"; its manifest says "expected"',
    });
  });
});

describe("a worker that answers badly", () => {
  test.each([
    ["invalid-json", "RESPONSE_INVALID"],
    ["huge-body", "RESPONSE_TOO_LARGE"],
  ])("gives one typed error a call: %s", async (fixture, code) => {
    await using bench = await Workbench.create();
    await using connection = await bench.start(fixture, fixture, "pidns");
    const answer = connection.post("/execute", call("any"), z.unknown());
    await expect(answer).rejects.toMatchObject({ code, category: "fatal" });
    expect(connection.worker.isRunning).toBe(true);
  });

  test("is refused before its answer is parsed: too deep, wrong fields, no reason", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("bad-answers", "bad-answers", "pidns");
    const post = (path: string): Promise<unknown> => connection.post(path, {}, z.unknown());
    await expect(post("/execute")).rejects.toMatchObject({
      code: "RESPONSE_TOO_LARGE",
      message: containing("64 levels"),
    });
    await expect(connection.get("/stats", statsSchema)).rejects.toMatchObject({
      code: "RESPONSE_INVALID",
      fieldsInvalid: ["pid", "cpu_percent", "memory_rss_mb"],
    });
    await expect(post("/task")).rejects.toMatchObject({
      code: "RESPONSE_INVALID",
      message: containing("status 500"),
    });
    await expect(connection.post("/cleanup", {}, statusReplySchema)).rejects.toMatchObject({
      code: "WORKER_HANDSHAKE",
    });
    expect(connection.worker.isRunning).toBe(true);
  });

  test("with rubbish on its control stream still answers; each line of rubbish is noted", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("rubbish", "rubbish-frames", "pidns");
    const { value } = await connection.post("/execute", call("rubbish"), z.unknown());
    expect(value).toBe("done");
    await bench.recorder.until(() => bench.recorder.notes.length >= 7);
    expect(bench.recorder.notes.every((note) => note.startsWith("not a control frame"))).toBe(true);
  });

  test("lets nobody in without the token of its session", async () => {
    await using bench = await Workbench.create();
    await using connection = await bench.start("echo", "echo", "pidns");
    const socketPath = connection.worker.ready.address.replace("unix:", "");
    await using stranger = new StrangerClient(socketPath);
    for (const authorization of [undefined, "Bearer", `Bearer ${"0".repeat(64)}`]) {
      expect(await stranger.status(authorization)).toBe(401);
    }
    await bench.recorder.until(() => bench.recorder.frames.some(({ type }) => type === "warning"));
  });
});

test("a worker that prints without end is read to the end; progress bars collapse", async () => {
  await using bench = await Workbench.create();
  await using connection = await bench.start("chatty", "chatty", "pidns");
  await connection.post("/execute", call("shout", { lines: 500 }), z.unknown());
  await bench.recorder.until(
    () => bench.recorder.lines.filter(({ stream }) => stream === "stdout").length === 500,
  );
  expect(bench.recorder.frames.filter(({ type }) => type === "log")).toHaveLength(500);
  await connection.terminate(20_000);
  // 500 redraws of one line, without a newline.
  expect(bench.recorder.lines.filter(({ stream }) => stream === "stderr")).toEqual([
    { stream: "stderr", line: "step 499" },
  ]);
});

test("a worker's environment is built, not inherited", async () => {
  await using bench = await Workbench.create();
  process.env["CJM_TEST_HOST_SECRET"] = "of-the-host";
  const spec = bench.spec("environment", ["sh", "-c", "env; exit 1"], { cage: "group" });
  await WorkerConnection.start(spec, bench.recorder).catch(() => undefined);
  delete process.env["CJM_TEST_HOST_SECRET"];
  const names = bench.recorder.lines.map(({ line }) => line.split("=")[0]);
  expect(names).toContain("CJM_WORKER_SESSION_ID");
  expect(names).not.toContain("CJM_TEST_HOST_SECRET");
  expect(names.filter((name) => name?.startsWith("npm_") || name?.startsWith("VITEST"))).toEqual(
    [],
  );
  expect(bench.recorder.lines.some(({ line }) => /token/iu.test(line))).toBe(false);
});

test("leaving a stream ends the call in the worker", async () => {
  await using bench = await Workbench.create();
  await using connection = await bench.start("slow", "slow-stream", "pidns");
  const chunks: unknown[] = [];
  for await (const chunk of connection.stream("/execute_stream", call("count", { every_ms: 1 }))) {
    chunks.push(chunk);
    if (chunks.length === 3) break;
  }
  expect(chunks).toEqual([{ n: 0 }, { n: 1 }, { n: 2 }]);
  const everyone = population(connection.worker.pid);
  await connection.terminate(20_000);
  await gone(everyone);
});

/** Speaks to a worker's socket without knowing its token. */
class StrangerClient implements AsyncDisposable {
  readonly #client: Client;

  constructor(socketPath: string) {
    this.#client = new Client("http://localhost", { socketPath });
  }

  async status(authorization: string | undefined): Promise<number> {
    const { statusCode, body } = await request("http://localhost/health", {
      dispatcher: this.#client,
      ...(authorization !== undefined && { headers: { authorization } }),
    });
    await body.dump();
    return statusCode;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client.close();
  }
}
