import { describe, expect, it } from "vitest";
import { adapter, collect, failureOf, NEVER, openEngine, reasonOf } from "./support.ts";
import { json, type StubServer } from "./stubs/stub-server.ts";
import { PULLED, speak, startOllama, WEIGHTS } from "./stubs/ollama-stub.ts";

const open = (stub: StubServer, config: object = {}) =>
  openEngine({ server: "ollama", base_url: stub.url, model: "tiny", ...config });
const progress: [number, string][] = [];
const load = {
  signal: NEVER,
  progress: (share: number, message: string): void => void progress.push([share, message]),
};

describe("ollama", () => {
  it("gets a prompt as it is, and every default of its own replaced", async () => {
    await using stub = await startOllama();
    await using engine = open(stub, { context_length: 128, keep_alive: "10m" });
    const { result, deltas } = await collect(engine, {
      stop: ["X"],
      parameters: { temperature: 0.5, seed: 9, repetition_penalty: 1.2 },
    });
    expect(deltas).toEqual(["Hel", "lo"]);
    expect(result).toMatchObject({
      text: "Hello",
      finish_reason: "stop",
      seed: 9,
      usage: { prompt_tokens: 4, completion_tokens: 3, total_tokens: 7 },
      evidence: { engine_version: "ollama 0.12.0", model_sha256: `sha256:${WEIGHTS}` },
    });
    expect(stub.of("/api/generate")[0]?.body).toEqual({
      model: "tiny",
      prompt: "Say hello",
      raw: true,
      stream: true,
      keep_alive: "10m",
      truncate: false,
      shift: false,
      options: {
        temperature: 0.5,
        top_p: 1,
        top_k: 0,
        min_p: 0,
        typical_p: 1,
        repeat_penalty: 1.2,
        repeat_last_n: -1,
        presence_penalty: 0,
        frequency_penalty: 0,
        num_predict: 512,
        seed: 9,
        stop: ["X"],
        num_ctx: 128,
      },
    });
  });

  it("chats, with a schema and log-probabilities", async () => {
    await using stub = await startOllama(
      {},
      {
        "POST /api/chat": (request, response) => speak(request, response, ['{"a"', ":1}"]),
      },
    );
    await using engine = open(stub);
    const json_schema = { type: "object" };
    const { result } = await collect(engine, {
      chat: "Hi",
      parameters: { json_schema, logprobs: 1 },
    });
    expect(result.logprobs?.map(({ text }) => text)).toEqual(['{"a"', ":1}"]);
    expect(stub.of("/api/chat")[0]?.body).toMatchObject({
      messages: [{ role: "user", content: "Hi" }],
      format: json_schema,
      logprobs: true,
      top_logprobs: 1,
    });
  });

  it("promises neither a grammar, nor adapters, nor penalties that count the prompt", async () => {
    await using stub = await startOllama();
    await using engine = open(stub);
    for (const name of ["grammar", "adapters", "presence_penalty", "frequency_penalty"]) {
      expect(engine.parameters).not.toContain(name);
    }
    const loaded = engine.loadAdapter?.(adapter(), load) as Promise<unknown>;
    expect(await reasonOf(loaded)).toBe("METHOD_NOT_SUPPORTED method_unsupported");
    const truncated = await failureOf(collect(engine, { overflow: "truncate" }));
    expect(truncated.fieldsInvalid).toEqual(["context_overflow"]);
  });

  it("loads, says where the model lies, and unloads", async () => {
    await using stub = await startOllama();
    await using engine = open(stub);
    await engine.prefetch(load);
    expect(engine.status().state).toBe("loaded");
    expect(engine.logged).toEqual(["Ollama has 25 % of tiny:latest in VRAM and the rest in RAM"]);
    expect(await engine.release("unload")).toEqual({ held: "" });
    expect(stub.state.isRunning).toBe(false);
    expect(engine.status().state).toBe("unloaded");
    expect(stub.of("/api/generate").at(-1)?.body).toMatchObject({ keep_alive: 0 });
  });

  it("that says it unloaded and did not is found out", async () => {
    await using stub = await startOllama({ keepsRunning: true });
    await using engine = open(stub);
    await engine.prefetch(load);
    expect(await reasonOf(engine.release("unload"))).toBe("CAPABILITY_ERROR server_lied");
  });

  it("that says it loaded and did not is found out", async () => {
    await using stub = await startOllama({ loadsNothing: true });
    await using engine = open(stub);
    expect(await reasonOf(engine.prefetch(load))).toBe("CAPABILITY_ERROR server_lied");
  });

  it("pulls a missing model where it may, with progress", async () => {
    await using stub = await startOllama({ isMissing: true });
    await using refusing = open(stub);
    expect(await reasonOf(refusing.prefetch(load))).toBe("CAPABILITY_INPUT model_missing");
    await using engine = open(stub, { pull: true });
    progress.length = 0;
    await engine.prefetch(load);
    expect(progress.map(([share]) => share)).toEqual([-1, 0.4, 1, 1, -1, 1]);
  });

  const failures: [string, readonly object[], string][] = [
    [
      "no network",
      [PULLED[0], { error: "pull model manifest: dial tcp: lookup registry: no such host" }],
      "CAPABILITY_TRANSIENT server_down",
    ],
    [
      "an unknown model",
      [PULLED[0], { error: "pull model manifest: file does not exist" }],
      "CAPABILITY_INPUT model_missing",
    ],
    ["an end in the middle", PULLED.slice(0, 2), "CAPABILITY_ERROR server_error"],
  ];
  it.each(failures)("fails to pull with %s", async (_, pull, expected) => {
    await using stub = await startOllama({ isMissing: true, pull });
    await using engine = open(stub, { pull: true });
    expect(await reasonOf(engine.prefetch(load))).toBe(expected);
  });

  const answers: [string, Parameters<typeof speak>[3] | string, string][] = [
    ["without an end", null, "CAPABILITY_TRANSIENT engine_crashed"],
    [
      "unloaded meanwhile",
      { done: true, done_reason: "unload" },
      "CAPABILITY_TRANSIENT server_aborted",
    ],
    [
      "with an error line",
      { error: "model runner: CUDA out of memory" },
      "CAPABILITY_RESOURCE memory",
    ],
    ["without counts", { done: true, done_reason: "stop" }, "CAPABILITY_ERROR server_error"],
  ];
  it.each(answers)("answers %s: it is named", async (_, end, expected) => {
    await using stub = await startOllama(
      {},
      {
        "POST /api/generate": (request, response) => {
          const isError = typeof end === "object" && end !== null && "error" in end;
          if (!isError) return speak(request, response, ["Hel"], end as object | null);
          response.write(`${JSON.stringify({ model: "tiny", response: "Hel", done: false })}\n`);
          response.end(`${JSON.stringify(end)}\n`);
        },
      },
    );
    await using engine = open(stub);
    expect(await reasonOf(collect(engine))).toBe(expected);
  });

  it("says what a model is without loading it", async () => {
    await using stub = await startOllama();
    await using engine = open(stub);
    expect(await engine.card()).toMatchObject({
      id: "tiny",
      format: "server",
      architecture: "llama",
      quantization: "Q4_0",
      parameters: 1234,
      context_length: 2048,
      chat_template: true,
      sha256: `sha256:${WEIGHTS}`,
    });
    expect(stub.state.isRunning).toBe(false);
  });

  it("embeds", async () => {
    await using stub = await startOllama(
      {},
      {
        "POST /api/embed": (_, response) =>
          json(response, { embeddings: [[3, 4]], prompt_eval_count: 2 }),
      },
    );
    await using engine = open(stub);
    const embedded = await engine.embed?.(["a"], { normalize: true }, { signal: NEVER });
    expect(embedded).toMatchObject({ embeddings: [[0.6, 0.8]], usage: { prompt_tokens: 2 } });
    expect(stub.of("/api/embed")[0]?.body).toMatchObject({ truncate: false });
  });
});
