import { describe, expect, it } from "vitest";
import { createWorkerApp, defineCapability, defineTaskAdapter, z } from "cjm-substrate/worker";
import { codeSectionSchema } from "../../../src/protocol/index.ts";
import { codeSection } from "../../../src/worker/surface.ts";
import { act, nothing, startTool, startWorker } from "./support.ts";

const config = z.strictObject({
  model: z.string().default("tiny").meta({ reloadTrigger: "model" }),
  device: z.string().meta({ reloadTrigger: "model" }).default("cpu"),
  threads: z.int().min(1).default(1),
});

describe("configuration", () => {
  it("is applied with its defaults, and shown", async () => {
    const seen: unknown[] = [];
    const worker = startWorker({
      name: "tool",
      version: "1",
      config,
      actions: {},
      release: { model: () => undefined },
      initialize: (applied) => void seen.push(applied),
    });
    expect((await worker.get("/config")).body).toEqual({});
    expect((await worker.post("/initialize", { threads: 4 })).body).toEqual({ status: "ok" });
    expect(seen).toEqual([{ model: "tiny", device: "cpu", threads: 4 }]);
    expect((await worker.get("/config")).body).toEqual(seen[0]);
  });

  it("is refused with every bad field named, unknown ones too", async () => {
    for (const schema of [z.object({ n: z.int() }), z.strictObject({ n: z.int() })]) {
      const worker = await startTool({ config: schema });
      const answer = await worker.post("/initialize", { n: 1.5, nn: 1 });
      expect(answer).toMatchObject({ status: 400, error: { code: "CONFIG_INVALID" } });
      expect(answer.error?.fields_invalid).toEqual(["n", "nn"]);
      expect(answer.body).toMatchObject({ status: "error" });
    }
  });

  it("takes unknown fields where the schema says so", async () => {
    const worker = await startTool({ config: z.looseObject({}) });
    expect((await worker.post("/initialize", { anything: 1 })).status).toBe(200);
  });

  it("fires each release of changed fields once, then applies the new config", async () => {
    const order: string[] = [];
    const worker = await startTool({
      config,
      release: { model: () => void order.push("release") },
      initialize: (applied) => void order.push(String(applied["model"])),
    });
    const change = (new_config: unknown) =>
      worker.post("/reconfigure", { old_config: {}, new_config });
    expect((await change({ model: "big", device: "cuda" })).body).toEqual({
      status: "reconfigured",
      changed: ["model", "device"],
      released: ["model"],
    });
    expect(order).toEqual(["tiny", "release", "big"]);
    await change({ model: "big", device: "cuda", threads: 2 });
    expect(order.slice(3)).toEqual(["big"]);
  });

  it("stays as it was where the new one is refused or does not apply", async () => {
    const worker = await startTool({
      config,
      release: { model: () => undefined },
      initialize(applied) {
        if (applied["model"] === "missing") throw new Error("no such model");
      },
    });
    const refused = await worker.post("/reconfigure", { new_config: { threads: 0 } });
    expect(refused.error?.fields_invalid).toEqual(["threads"]);
    const failed = await worker.post("/reconfigure", { new_config: { model: "missing" } });
    expect(failed).toMatchObject({ status: 500, body: { detail: "no such model" } });
    expect((await worker.get("/config")).body).toMatchObject({ model: "tiny", threads: 1 });
  });

  it("cannot name a release that is missing", () => {
    const tool = defineCapability({ name: "tool", version: "1", config, actions: {} });
    expect(() => createWorkerApp(tool)).toThrow("config.model triggers release.model");
  });

  it("has a JSON Schema of draft 2020-12 that shows the triggers", async () => {
    const worker = await startTool({ config, release: { model: () => undefined } });
    expect((await worker.get("/config_schema")).body).toEqual({
      $schema: "https://json-schema.org/draft/2020-12/schema",
      type: "object",
      properties: {
        model: { type: "string", default: "tiny", reload_trigger: "model" },
        device: { type: "string", default: "cpu", reload_trigger: "model" },
        threads: { type: "integer", default: 1, minimum: 1, maximum: Number.MAX_SAFE_INTEGER },
      },
      additionalProperties: false,
    });
  });

  it("has live options", async () => {
    const options = { model: { options: [{ value: "tiny", label: "Tiny" }] } };
    const worker = await startTool({ configOptions: () => Promise.resolve(options) });
    expect((await worker.get("/config_options")).body).toEqual(options);
    expect((await (await startTool({})).get("/config_options")).body).toEqual({});
  });
});

describe("life-cycle hooks", () => {
  it("answer not_supported where the capability has none", async () => {
    const worker = await startTool({});
    for (const path of ["/prefetch", "/release", "/on_enable", "/on_disable", "/cleanup"]) {
      expect(await worker.post(path)).toMatchObject({
        status: 200,
        body: { status: "not_supported" },
      });
    }
  });

  it("answer with their word, and with what a release left", async () => {
    const worker = await startTool({
      prefetch: () => undefined,
      onEnable: () => undefined,
      onDisable: () => undefined,
      cleanup: () => undefined,
      releaseMemory: (level) => ({ held: level, freedMb: 7 }),
    });
    const answers = await Promise.all(
      ["/prefetch", "/on_enable", "/on_disable", "/cleanup"].map((path) => worker.post(path)),
    );
    const words = ["prefetched", "enabled", "disabled", "cleaned"];
    expect(answers.map(({ body }) => body)).toEqual(words.map((status) => ({ status })));
    const released = await worker.post("/release", { level: "offload" });
    expect(released.body).toEqual({ status: "released", held: "offload", freed_mb: 7 });
  });

  it("run the cleanup once, until something was initialized again", async () => {
    let cleanups = 0;
    const worker = await startTool({ cleanup: () => void (cleanups += 1) });
    await worker.post("/cleanup");
    await worker.post("/cleanup");
    expect(cleanups).toBe(1);
    await worker.post("/initialize");
    await worker.post("/cleanup");
    expect(cleanups).toBe(2);
  });

  it("report the progress of a prefetch without a job, its last state always", async () => {
    const worker = await startTool({
      async prefetch({ progress, heartbeat }) {
        for (let step = 0; step <= 1000; step += 1) progress(step / 1000, `step ${step}`);
        await heartbeat("loading", () => Promise.resolve());
      },
    });
    await worker.post("/prefetch");
    const frames = worker.of("progress");
    expect(frames[0]).toEqual({ type: "progress", progress: 0, message: "step 0" });
    expect(frames.at(-1)).toEqual({ type: "progress", progress: -1, message: "loading (0 s)" });
    expect(frames).toHaveLength(2);
    expect((await worker.get("/progress")).body).toEqual({
      progress: -1,
      message: "loading (0 s)",
    });
  });

  it("are told when nobody waits for them any more", async () => {
    const waits = Promise.withResolvers<void>();
    const worker = await startTool({
      prefetch: ({ signal }) =>
        new Promise((_, reject) => {
          signal.addEventListener("abort", () => {
            reject(new Error("left alone"));
          });
          waits.resolve();
        }),
    });
    const connection = new AbortController();
    const answer = worker.post("/prefetch", {}, connection.signal);
    await waits.promise;
    connection.abort();
    expect(await answer).toMatchObject({ status: 500, body: { detail: "left alone" } });
  });

  it("fail with detail and typed error", async () => {
    const prefetch = (): never => {
      throw new Error("CUDA error: out of memory");
    };
    const answer = await (await startTool({ prefetch })).post("/prefetch");
    expect(answer).toMatchObject({
      status: 500,
      body: { status: "error", detail: "CUDA error: out of memory" },
      error: { category: "resource" },
    });
  });
});

describe("monitor endpoints", () => {
  it("are 404 where the capability is no monitor, like unknown paths", async () => {
    const worker = await startTool({});
    for (const path of ["/get_system_status", "/list_processes", "/nowhere"]) {
      expect(await worker.post(path)).toMatchObject({
        status: 404,
        error: { code: "METHOD_NOT_SUPPORTED" },
      });
    }
  });

  it("answer for a monitor", async () => {
    const monitor = {
      getSystemStatus: () => Promise.resolve({ gpu_type: "none" }),
      listProcesses: () => Promise.resolve([{ pid: 1 }]),
    };
    const worker = await startTool({ monitor });
    expect((await worker.post("/get_system_status")).body).toEqual({ gpu_type: "none" });
    expect((await worker.post("/list_processes")).body).toEqual([{ pid: 1 }]);
  });
});

describe("POST /task", () => {
  const adapter = defineTaskAdapter({
    task: "greeting",
    requires: ["say"],
    methods: {
      greet: {
        input: z.object({ who: z.string() }),
        output: z.string(),
        async handler(input, call) {
          const { who } = z.object({ who: z.string() }).parse(input);
          return z.string().parse(await call.invoke("say", { text: `hello ${who}` }));
        },
      },
      _hidden: { input: nothing, output: z.null(), handler: () => null },
    },
  });
  const say = {
    input: z.object({ text: z.string() }),
    output: z.string(),
    handler: (input: unknown) => z.object({ text: z.string() }).parse(input).text,
  };

  it("runs a method of an adapter and accounts for it", async () => {
    const worker = await startTool({ actions: { say }, tasks: [adapter] });
    const call = (kwargs: unknown) =>
      worker.post("/task", {
        task: "greeting",
        method: "greet",
        kwargs,
        envelope: { job_id: "t" },
      });
    expect((await call({ who: "you" })).body).toBe("hello you");
    expect((await call({})).error?.fields_invalid).toEqual(["who"]);
    const account = { type: "account", job_id: "t", event_type: "task_account" };
    expect(worker.of("account")).toEqual([
      {
        ...account,
        payload: {
          task: "greeting",
          method: "greet",
          ok: true,
          duration_s: expect.any(Number) as number,
        },
      },
      {
        ...account,
        payload: expect.objectContaining({ ok: false, error_category: "user_input" }) as object,
      },
    ]);
  });

  it("is 404 for unknown tasks, unknown methods and those that begin with _", async () => {
    const worker = await startTool({ actions: { say }, tasks: [adapter] });
    for (const [task, method] of [
      ["greeting", "_hidden"],
      ["greeting", "toString"],
      ["parting", "greet"],
    ]) {
      const answer = await worker.post("/task", { task, method });
      expect(answer).toMatchObject({ status: 404, error: { code: "METHOD_NOT_SUPPORTED" } });
    }
  });
});

describe("what a capability says about itself", () => {
  const say = act(() => null);
  const ordered = {
    input: z.object({ second: z.string(), first: z.string() }),
    output: z.int(),
    repeatable: true,
    description: "Counts.",
    handler: () => 1,
  };
  const parts = {
    actions: { say, ordered },
    tasks: [{ task: "t", methods: { m: ordered } }],
    workerEnv: [{ name: "API_KEY", secret: true }],
    monitor: {
      getSystemStatus: () => Promise.resolve({}),
      listProcesses: () => Promise.resolve([]),
    },
  };

  it("has the parameters of its methods in the order they were declared", async () => {
    expect((await (await startTool(parts)).get("/structural_surface")).body).toEqual({
      methods: [
        { name: "get_system_status", signature: "()", params: [] },
        { name: "list_processes", signature: "()", params: [] },
        { name: "ordered", signature: "(second, first)", params: ["second", "first"] },
        { name: "say", signature: "()", params: [] },
      ],
      properties: [],
      attributes: {},
    });
  });

  it("is the code section of a manifest", () => {
    const section = codeSection(
      defineCapability({ name: "tool", version: "1.2.3", config: nothing, ...parts }),
    );
    expect(codeSectionSchema.parse(section)).toMatchObject({
      name: "tool",
      version: "1.2.3",
      sdk: "cjm",
      protocol: 1,
      tasks: { t: ["m"] },
      max_concurrent_requests: 1,
      monitor: true,
      worker_env: [{ name: "API_KEY", secret: true }],
      actions: {
        ordered: {
          description: "Counts.",
          repeatable: true,
          default: false,
          streaming: false,
          input_schema: { required: ["second", "first"], additionalProperties: false },
          output_schema: { type: "integer" },
        },
      },
    });
  });

  it("is its health", async () => {
    expect((await (await startTool({})).get("/health")).body).toMatchObject({
      status: "running",
      pid: process.pid,
      name: "tool",
      version: "1.2.3",
      protocol: 1,
    });
  });

  it("counts itself and what it started", async () => {
    const { body } = await (await startTool({})).get("/stats");
    expect(body).toMatchObject({ pid: process.pid, usage: {} });
    expect((body as { subtree_pids: number[] }).subtree_pids).toContain(process.pid);
    expect((body as { memory_rss_mb: number }).memory_rss_mb).toBeGreaterThan(1);
  });
});
