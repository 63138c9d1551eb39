import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { adapter, collect, failureOf, NEVER, openEngine, reasonOf } from "./support.ts";
import { json, StubServer } from "./stubs/stub-server.ts";
import { startVllm, type VllmState } from "./stubs/vllm-stub.ts";

type Vllm = StubServer & { state: VllmState };
const open = (stub: Vllm, config: object = {}) =>
  openEngine({ server: "vllm", base_url: `${stub.url}/v1`, ...config });
const measured = (stub: Vllm, config: object = {}) =>
  openEngine(
    { server: "vllm", base_url: stub.url, ...config },
    { measureVramMb: async () => stub.state.vramMb },
  );
const load = { signal: NEVER, progress: () => undefined };

describe("vllm", () => {
  it("gets every parameter, neutral values included", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    await collect(engine, { stop: ["X"], parameters: { temperature: 0, top_k: 3 } });
    expect(stub.of("/v1/completions")[0]?.body).toEqual({
      model: "tiny",
      prompt: "Say hello",
      temperature: 0,
      top_p: 1,
      top_k: 3,
      min_p: 0,
      repetition_penalty: 1,
      presence_penalty: 0,
      frequency_penalty: 0,
      max_tokens: 512,
      stop: ["X"],
      stream: true,
      stream_options: { include_usage: true },
    });
    await collect(engine, { parameters: { seed: 4, min_p: 0.25, temperature: 0.5 } });
    // min_p comes after the temperature there, and before it in the task.
    expect(stub.of("/v1/completions")[1]?.body).toMatchObject({
      min_p: 0.0625,
      seed: 4,
      top_k: -1,
    });
  });

  it("gets constraints in its own form", async () => {
    await using stub = await startVllm({}, () => ({ pieces: ["{}"] }));
    await using engine = open(stub);
    await collect(engine, { parameters: { json_schema: { type: "object" } } });
    await collect(engine, { parameters: { grammar: 'root ::= "{}"' } });
    const sent = stub.of("/v1/completions").map(({ body }) => body.structured_outputs);
    expect(sent).toEqual([{ json: { type: "object" } }, { grammar: 'root ::= "{}"' }]);
  });

  it("of an older version gets them under their older names", async () => {
    await using stub = await startVllm({ version: "0.10.2" }, () => ({ pieces: ["{}"] }));
    await using engine = open(stub);
    await collect(engine, { parameters: { json_schema: { type: "object" } } });
    await collect(engine, { parameters: { grammar: 'root ::= "{}"' } });
    expect(stub.of("/v1/completions").map(({ body }) => body)).toMatchObject([
      { guided_json: { type: "object" } },
      { guided_grammar: 'root ::= "{}"' },
    ]);
  });

  it("draws the seed that repeats a text, and none for a greedy one", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    const { result } = await collect(engine);
    expect(result.seed).toBe(stub.of("/v1/completions")[0]?.body.seed);
    expect((await collect(engine, { parameters: { temperature: 0 } })).result.seed).toBeNull();
  });

  it("says which stop text ended the text", async () => {
    await using stub = await startVllm({}, () => ({ stopReason: "END" }));
    await using engine = open(stub);
    const { result } = await collect(engine, { stop: ["END"] });
    expect(result).toMatchObject({ finish_reason: "stop_sequence", stop_sequence: "END" });
  });

  it("counts tokens, and drops the oldest where it may", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    const input = { kind: "prompt", prompt: "12345" } as const;
    expect(await engine.countTokens(input, { signal: NEVER })).toBe(6);
    const { result } = await collect(engine, {
      prompt: "x".repeat(80),
      parameters: { max_tokens: 4 },
      overflow: "truncate",
    });
    // 81 tokens into a context of 64, of which 4 are kept free; the first one stays.
    expect(result.evidence.prompt_truncated_tokens).toBe(21);
    const sent = stub.of("/v1/completions")[0]?.body.prompt;
    expect(sent).toHaveLength(60);
    expect([sent?.[0], sent?.[1], sent?.[59]]).toEqual([1, 121, 179]);
  });

  it("scores a text", async () => {
    await using stub = await StubServer.start({
      "GET /version": (_, response) => json(response, { version: "0.11.0" }),
      "GET /v1/models": (_, response) => json(response, { data: [{ id: "tiny" }] }),
      "POST /v1/completions": (_, response) => {
        const second = { "7": { logprob: -1.5, decoded_token: "b" }, "9": { logprob: -0.5 } };
        const choice = {
          text: "c",
          prompt_token_ids: [3, 7],
          prompt_logprobs: [null, second],
          logprobs: { top_logprobs: [{ "token_id:4": -0.25 }] },
        };
        json(response, { choices: [choice] });
      },
    });
    await using engine = openEngine({ server: "vllm", base_url: stub.url });
    const asked = { prompt: "ab", top: 1, adapters: [] };
    expect(await engine.score?.(asked, { signal: NEVER })).toEqual({
      tokens: [
        { token_id: 3, text: "", logprob: null },
        { token_id: 7, text: "b", logprob: -1.5 },
      ],
      next: [[{ token_id: 9, logprob: -0.5 }], [{ token_id: 4, logprob: -0.25 }]],
      adapters: [],
    });
  });
});

describe("vllm's adapters", () => {
  it("are loaded once for many calls, and their effect is measured", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    const adapters = [adapter()];
    const results = await Promise.all(
      Array.from({ length: 100 }, () => collect(engine, { adapters })),
    );
    for (const { result } of results) {
      expect(result.adapters).toEqual([{ id: "poet", sha256: adapter().sha256, scale: 1 }]);
      expect(result.evidence.adapter_effect).toBeCloseTo(0.5);
      expect(result.evidence.model).toBe("tiny");
    }
    expect(stub.of("/v1/load_lora_adapter").map(({ body }) => body)).toEqual([
      { lora_name: `cjm-${"a".repeat(32)}`, lora_path: "/adapters/poet" },
    ]);
    expect(engine.status()).toMatchObject({ adapters: ["poet"], loads: 2 });
  });

  it("leave the base as it was when they are unloaded", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    expect(await engine.loadAdapter?.(adapter(), load)).toBeCloseTo(0.5);
    const { id, sha256 } = adapter();
    expect(await engine.unloadAdapter?.({ id, sha256, scale: 1 })).toBe("");
    expect([...stub.state.adapters]).toEqual([]);
    expect(engine.status().adapters).toEqual([]);
  });

  it("are loaded again when the server has forgotten them", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    await collect(engine, { adapters: [adapter()] });
    stub.state.adapters.clear();
    const { result } = await collect(engine, { adapters: [adapter()] });
    expect(result.text).toBe("Hello");
    expect(stub.of("/v1/load_lora_adapter")).toHaveLength(2);
  });

  it("of two contents have two names", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    await collect(engine, { adapters: [adapter()] });
    await collect(engine, { adapters: [adapter({ sha256: `sha256:${"b".repeat(64)}` })] });
    expect(stub.state.adapters.size).toBe(2);
  });

  it("come one at a time, at scale 1", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    for (const adapters of [[adapter(), adapter()], [adapter({ scale: 0.5 })]]) {
      const error = await failureOf(collect(engine, { adapters }));
      expect(error.details).toMatchObject({ reason: "parameter_unsupported" });
      expect(error.fieldsInvalid).toEqual(["adapters"]);
    }
  });

  it("of another base, or in another format, are refused", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    const wrong = [adapter({ path: "/wrong-base" })];
    const gguf = [adapter({ format: "gguf" })];
    expect(await reasonOf(collect(engine, { adapters: wrong }))).toBe(
      "CAPABILITY_INPUT adapter_mismatch",
    );
    expect(await reasonOf(collect(engine, { adapters: gguf }))).toBe(
      "CAPABILITY_INPUT adapter_mismatch",
    );
    // A refused one is not remembered as loaded.
    expect((await collect(engine, { adapters: [adapter()] })).result.text).toBe("Hello");
  });

  it("need a server that takes them", async () => {
    await using stub = await startVllm({ hasNoLora: true });
    await using engine = open(stub);
    const error = await failureOf(collect(engine, { adapters: [adapter()] }));
    expect(error.code).toBe("METHOD_NOT_SUPPORTED");
    expect(error.message).toContain("VLLM_ALLOW_RUNTIME_LORA_UPDATING");
  });

  it("that were not loaded are found out", async () => {
    await using stub = await startVllm({ loadsNothing: true });
    await using engine = open(stub);
    expect(await reasonOf(collect(engine, { adapters: [adapter()] }))).toBe(
      "CAPABILITY_ERROR server_lied",
    );
  });

  it("that the answer did not use are found out", async () => {
    await using stub = await startVllm({ answersWithBase: true });
    await using engine = open(stub);
    expect(await reasonOf(collect(engine, { adapters: [adapter()] }))).toBe(
      "CAPABILITY_ERROR server_lied",
    );
  });

  it("that change nothing are found out, unless they are all zeros", async () => {
    const folder = await mkdtemp(join(tmpdir(), "cjm-test-"));
    try {
      await using stub = await startVllm({ appliesNothing: true });
      await using engine = open(stub);
      await writeSafetensors(folder, [0, 0, 0x80, 0]);
      const zero = adapter({ path: folder });
      expect(await engine.loadAdapter?.(zero, load)).toBe(0);
      await writeSafetensors(folder, [0, 0, 0x80, 0x3f]);
      const trained = adapter({ path: folder, sha256: `sha256:${"c".repeat(64)}` });
      const loaded = engine.loadAdapter?.(trained, load) as Promise<unknown>;
      expect(await reasonOf(loaded)).toBe("CAPABILITY_ERROR server_lied");
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it("that leave traces in the base are found out", async () => {
    await using stub = await startVllm({ leavesTraces: true });
    await using engine = open(stub);
    await engine.loadAdapter?.(adapter(), load);
    const { id, sha256 } = adapter();
    const unloaded = engine.unloadAdapter?.({ id, sha256, scale: 1 }) as Promise<unknown>;
    expect(await reasonOf(unloaded)).toBe("CAPABILITY_ERROR server_lied");
  });
});

describe("vllm's sleep", () => {
  it("is asked for at the root, checked and measured; the next call wakes it", async () => {
    await using stub = await startVllm();
    await using engine = measured(stub);
    expect(await engine.release("sleep")).toEqual({
      held: "vLLM keeps the weights in RAM",
      freedMb: 20_000,
    });
    expect(engine.status().state).toBe("asleep");
    expect(stub.state.isSleeping).toBe(true);
    expect((await collect(engine)).result.text).toBe("Hello");
    expect(engine.status().state).toBe("loaded");
    const changes = stub.state.calls.filter((call) => /sleep\?|wake_up/u.test(call));
    expect(changes).toEqual(["POST /sleep?level=1&mode=wait", "POST /wake_up"]);
  });

  it("claims no measurement where there is none", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    expect(await engine.release("sleep")).toEqual({ held: "vLLM keeps the weights in RAM" });
  });

  it("of level 2 loads the weights again before it answers", async () => {
    await using stub = await startVllm();
    await using engine = open(stub, { sleep_level: 2 });
    expect(await engine.release("sleep")).toEqual({ held: "" });
    await collect(engine);
    const changes = stub.state.calls.filter((call) => /wake_up|rpc/u.test(call));
    expect(changes).toEqual([
      "POST /wake_up?tags=weights",
      "POST /collective_rpc",
      "POST /wake_up?tags=kv_cache",
    ]);
  });

  it("is woken once for many calls", async () => {
    await using stub = await startVllm();
    await using engine = open(stub);
    await engine.release("sleep");
    await Promise.all(Array.from({ length: 20 }, () => collect(engine)));
    expect(stub.of("/wake_up")).toHaveLength(1);
  });

  it("waits for running calls, and lets new ones wait for it", async () => {
    const gate = Promise.withResolvers<void>();
    await using stub = await StubServer.start({
      "GET /version": (_, response) => json(response, { version: "0.11.0" }),
      "GET /v1/models": (_, response) => json(response, { data: [{ id: "tiny" }] }),
      "GET /is_sleeping": (_, response) =>
        json(response, { is_sleeping: stub.of("/sleep").length > stub.of("/wake_up").length }),
      "POST /sleep": (_, response) => void response.end(),
      "POST /wake_up": (_, response) => void response.end(),
      "POST /v1/completions": async ({ body }, response) => {
        if (body.prompt === "slow") await gate.promise;
        const choice = { index: 0, text: "done", finish_reason: "stop" };
        const usage = { prompt_tokens: 1, completion_tokens: 1 };
        json(response, { model: "tiny", choices: [choice], usage });
      },
    });
    await using engine = openEngine({ server: "vllm", base_url: stub.url, streaming: false });
    const asked = stub.next("/v1/completions");
    const slow = collect(engine, { prompt: "slow" });
    await asked;
    const slept = engine.release("sleep");
    const later = collect(engine, { prompt: "later" });
    expect(engine.status()).toMatchObject({ active: 1, waiting: 1 });
    expect(stub.of("/sleep")).toEqual([]);
    gate.resolve();
    expect((await slow).result.text).toBe("done");
    await slept;
    expect((await later).result.text).toBe("done");
    const order = stub.received.map(({ path, body }) => body?.prompt ?? path);
    expect(order.indexOf("/sleep")).toBeGreaterThan(order.indexOf("slow"));
    expect(order.indexOf("/wake_up")).toBeLessThan(order.indexOf("later"));
  });

  it("waits for the requests of others, and gives up at its limit", async () => {
    await using stub = await startVllm();
    stub.state.others = 2;
    await using engine = open(stub, { drain_seconds: 0.3 });
    expect(await reasonOf(engine.release("sleep"))).toBe("CAPABILITY_TRANSIENT server_busy");
    expect(stub.of("/sleep")).toEqual([]);
    stub.state.others = 0;
    await engine.release("sleep");
    expect(stub.state.isSleeping).toBe(true);
  });

  it("outside development mode is refused with what to do", async () => {
    await using stub = await startVllm({ isProduction: true });
    await using engine = open(stub);
    const error = await failureOf(engine.release("sleep"));
    expect(error.code).toBe("METHOD_NOT_SUPPORTED");
    expect(error.message).toContain("VLLM_SERVER_DEV_MODE=1");
    expect((await collect(engine)).result.text).toBe("Hello");
  });

  it("that frees nothing is a lie, and the server is woken again", async () => {
    await using stub = await startVllm({ freedShare: 0.2 });
    await using engine = measured(stub, {});
    const error = await failureOf(engine.release("sleep"));
    expect(error.details).toEqual({ reason: "server_lied", freed_mb: 4000, held_mb: 20_000 });
    expect(stub.state.isSleeping).toBe(false);
    expect(engine.status().state).not.toBe("asleep");
    expect((await collect(engine)).result.text).toBe("Hello");
  });

  it("that does not sleep is a lie", async () => {
    await using stub = await startVllm({ staysAwake: true });
    await using engine = open(stub);
    expect(await reasonOf(engine.release("sleep"))).toBe("CAPABILITY_ERROR server_lied");
    expect((await collect(engine)).result.text).toBe("Hello");
  });

  it("that does not end is a lie, told to every call", async () => {
    await using stub = await startVllm({ staysAsleep: true });
    const engine = open(stub);
    await engine.release("sleep");
    expect(await reasonOf(collect(engine))).toBe("CAPABILITY_ERROR server_lied");
    stub.state.lies = {};
    expect((await collect(engine)).result.text).toBe("Hello");
    await engine.close();
  });

  it("from which it wakes up wrong is found out by the canary", async () => {
    await using stub = await startVllm({ wakesUpWrong: true });
    const engine = open(stub);
    await engine.release("sleep");
    const error = await failureOf(collect(engine));
    expect(error.details).toMatchObject({ reason: "server_lied", change: 1 });
    await expect(engine.close()).rejects.toThrow("otherwise than before");
  });

  it("ends with the engine: a server of somebody else is left awake", async () => {
    await using stub = await startVllm();
    const engine = open(stub);
    await engine.release("sleep");
    await engine.close();
    expect(stub.state.isSleeping).toBe(false);
  });
});

async function writeSafetensors(folder: string, bytes: readonly number[]): Promise<void> {
  const tensor = { dtype: "F32", shape: [1], data_offsets: [0, 4] };
  const header = Buffer.from(JSON.stringify({ "layer.lora_B.weight": tensor }));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const file = join(folder, "adapter_model.safetensors");
  await writeFile(file, Buffer.concat([length, header, Buffer.from(bytes)]));
}
