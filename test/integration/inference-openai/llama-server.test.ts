import { createHash } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { adapter, collect, failureOf, NEVER, openEngine, reasonOf } from "./support.ts";
import { events, json, type StubServer } from "./stubs/stub-server.ts";
import { CONTEXT, startLlama, tokensOf } from "./stubs/llama-stub.ts";

const open = (stub: StubServer, config: object = {}) =>
  openEngine({ server: "llama-server", base_url: stub.url, ...config });
const load = { signal: NEVER, progress: () => undefined };

let folder: string;
const files = ["first", "second"] as const;
const pathOf = (name: string): string => join(folder, `${name}.gguf`);
const lora = (name: string, scale = 1) =>
  adapter({
    id: name,
    path: pathOf(name),
    sha256: `sha256:${createHash("sha256").update(name).digest("hex")}`,
    format: "gguf",
    scale,
  });

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-test-"));
  for (const name of files) await writeFile(pathOf(name), name);
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

const parameters = { max_tokens: 4 };

describe("llama-server", () => {
  it("gets the prompt's tokens and the whole chain of samplers", async () => {
    await using stub = await startLlama();
    await using engine = open(stub);
    const { result } = await collect(engine, {
      prompt: "ab",
      stop: ["X"],
      parameters: { max_tokens: 4, seed: 6, top_k: 5, logprobs: 1 },
    });
    expect(result).toMatchObject({
      text: "Hello",
      finish_reason: "stop",
      seed: 6,
      usage: { prompt_tokens: 3, cached_prompt_tokens: 2, completion_tokens: 3 },
      evidence: { engine_version: "llama-server b1234", model: "tiny" },
    });
    // The end-of-text token has no entry.
    expect(result.logprobs).toEqual([
      {
        token_id: 72,
        text: "Hel",
        logprob: -0.25,
        top: [{ token_id: 97, text: "a", logprob: -0.25 }],
      },
      {
        token_id: 108,
        text: "lo",
        logprob: -0.25,
        top: [{ token_id: 97, text: "a", logprob: -0.25 }],
      },
    ]);
    expect(stub.of("/completion")[0]?.body).toEqual({
      prompt: [1, 97, 98],
      stream: true,
      // A seed was given, and what comes from the cache has other last digits.
      cache_prompt: false,
      temperature: 1,
      top_p: 1,
      top_k: 5,
      min_p: 0,
      repeat_penalty: 1,
      repeat_last_n: CONTEXT,
      presence_penalty: 0,
      frequency_penalty: 0,
      samplers: ["penalties", "top_k", "top_p", "min_p", "temperature"],
      n_predict: 4,
      seed: 6,
      stop: ["X"],
      n_probs: 1,
      lora: [],
    });
    expect(stub.of("/tokenize")[0]?.body).toMatchObject({ parse_special: false });
  });

  it("makes a chat's prompt with the model's own template", async () => {
    await using stub = await startLlama();
    await using engine = open(stub);
    await collect(engine, { chat: "Hi", parameters });
    expect(stub.of("/completion")[0]?.body.prompt).toEqual(tokensOf("<user>Hi"));
    expect(stub.of("/tokenize")[0]?.body).toMatchObject({ parse_special: true });
  });

  it("has as many slots as the server", async () => {
    await using stub = await startLlama();
    await using engine = open(stub);
    await engine.prefetch(load);
    expect(engine.status()).toMatchObject({ state: "loaded", slots: 2 });
  });

  it("says which stop text ended the text", async () => {
    const end = { stop_type: "word", stopping_word: "X" };
    await using stub = await startLlama([], { end });
    await using engine = open(stub);
    const { result } = await collect(engine, { parameters, stop: ["X"] });
    expect(result).toMatchObject({ finish_reason: "stop_sequence", stop_sequence: "X" });
  });

  it("refuses what exceeds the context, or drops the oldest tokens", async () => {
    await using stub = await startLlama();
    await using engine = open(stub);
    const prompt = "abcdefghij".repeat(7);
    const refused = await failureOf(collect(engine, { prompt, parameters }));
    expect(refused.details).toEqual({ reason: "context_overflow" });
    expect(refused.message).toContain("71 tokens of prompt and 4 of max_tokens");
    expect(stub.of("/completion")).toEqual([]);
    const { result } = await collect(engine, { prompt, parameters, overflow: "truncate" });
    expect(result.evidence.prompt_truncated_tokens).toBe(11);
    const sent = stub.of("/completion")[0]?.body.prompt;
    expect(sent).toHaveLength(60);
    expect(sent?.slice(0, 2)).toEqual([1, "b".charCodeAt(0)]);
    const max = { max_tokens: CONTEXT };
    expect(await reasonOf(collect(engine, { parameters: max, overflow: "truncate" }))).toBe(
      "CAPABILITY_INPUT context_overflow",
    );
  });

  it("has a grammar, and names a bad one", async () => {
    await using stub = await startLlama(
      [],
      {},
      {
        "POST /completion": (_, response) => {
          const message = "Failed to initialize samplers: failed to parse grammar";
          json(response, { error: { code: 400, message, type: "invalid_request_error" } }, 400);
        },
      },
    );
    await using engine = open(stub);
    const error = await failureOf(collect(engine, { parameters: { ...parameters, grammar: "(" } }));
    expect(error.details).toMatchObject({ reason: "grammar_invalid" });
  });

  const lies: [string, object, object, string[]][] = [
    ["another temperature", { temperature: 0.8 }, {}, ["temperature"]],
    ["other samplers", { samplers: ["temperature"] }, {}, ["samplers"]],
    ["no grammar", { grammar: "" }, { grammar: "root ::= x" }, ["grammar"]],
    ["an adapter that nobody asked for", { lora: [{ id: 0, scale: 1 }] }, {}, ["lora"]],
    ["no stop", { stop: [] }, {}, ["stop"]],
  ];
  it.each(lies)("that applied %s is found out", async (_, applied, given, settings) => {
    await using stub = await startLlama([], { applied });
    await using engine = open(stub);
    const asked = { stop: ["X"], parameters: { ...parameters, ...given } };
    const error = await failureOf(collect(engine, asked));
    expect(error.details).toEqual({ reason: "server_lied", settings });
  });

  it("whose stream ends in the middle is named", async () => {
    await using stub = await startLlama(
      [],
      {},
      {
        "POST /completion": (_, response) => {
          events(response)({ content: "Hel", stop: false });
          response.end();
        },
      },
    );
    await using engine = open(stub);
    expect(await reasonOf(collect(engine, { parameters }))).toBe(
      "CAPABILITY_TRANSIENT engine_crashed",
    );
  });

  it("counts tokens", async () => {
    await using stub = await startLlama();
    await using engine = open(stub);
    const input = { kind: "prompt", prompt: "abc" } as const;
    expect(await engine.countTokens(input, { signal: NEVER })).toBe(4);
  });

  it("says what its model is", async () => {
    await using stub = await startLlama();
    await using engine = open(stub);
    expect(await engine.card()).toMatchObject({
      id: "tiny",
      path: "/models/tiny.gguf",
      quantization: "F32",
      parameters: 9,
      bytes: 36,
      context_length: 512,
      chat_template: true,
    });
  });
});

describe("llama-server's adapters", () => {
  it("are found by their content and scaled per call, all others off", async () => {
    await using stub = await startLlama(files.map(pathOf));
    await using engine = open(stub);
    const { result } = await collect(engine, { parameters, adapters: [lora("second", 0.5)] });
    expect(result.adapters).toEqual([{ id: "second", sha256: lora("second").sha256, scale: 0.5 }]);
    expect(result.evidence.adapter_effect).toBeCloseTo(0.5);
    expect(stub.of("/completion").at(-1)?.body.lora).toEqual([
      { id: 0, scale: 0 },
      { id: 1, scale: 0.5 },
    ]);
    await collect(engine, { parameters });
    expect(stub.of("/completion").at(-1)?.body.lora).toEqual([
      { id: 0, scale: 0 },
      { id: 1, scale: 0 },
    ]);
    const both = [lora("first"), lora("second", -1)];
    await collect(engine, { parameters, adapters: both });
    expect(stub.of("/completion").at(-1)?.body.lora).toEqual([
      { id: 0, scale: 1 },
      { id: 1, scale: -1 },
    ]);
  });

  it("that the server was not started with are refused, and so are PEFT folders", async () => {
    await using stub = await startLlama([pathOf("first")]);
    await using engine = open(stub);
    const unknown = collect(engine, { parameters, adapters: [lora("second")] });
    expect(await reasonOf(unknown)).toBe("CAPABILITY_INPUT adapter_unknown");
    const peft = collect(engine, { parameters, adapters: [adapter()] });
    expect(await reasonOf(peft)).toBe("CAPABILITY_INPUT adapter_mismatch");
  });

  it("are looked for again when the server was started with others", async () => {
    const list = [pathOf("first"), pathOf("second")];
    await using stub = await startLlama(list);
    await using engine = open(stub);
    await collect(engine, { parameters, adapters: [lora("first")] });
    list.reverse();
    await collect(engine, { parameters, adapters: [lora("first")] });
    expect(stub.of("/completion").at(-1)?.body.lora).toEqual([
      { id: 0, scale: 0 },
      { id: 1, scale: 1 },
    ]);
  });

  it("stay in the server's memory, which is said", async () => {
    await using stub = await startLlama([pathOf("first")]);
    await using engine = open(stub);
    expect(await engine.loadAdapter?.(lora("first"), load)).toBeCloseTo(1);
    const { id, sha256 } = lora("first");
    expect(await engine.unloadAdapter?.({ id, sha256, scale: 1 })).toContain("in memory");
    expect(engine.status().adapters).toEqual([]);
  });
});
