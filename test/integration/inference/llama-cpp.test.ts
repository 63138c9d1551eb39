import { copyFile, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LlamaCppEngine } from "../../../workers/inference/llama-cpp/engine.ts";
import {
  scoreOutputSchema,
  type Generation,
  type Logprob,
  type Score,
} from "../../../workers/inference/task/schemas.ts";
import { errorOf, generateWith } from "../../support/text-generation.ts";
import { openSite, type Site } from "./site.ts";
import { writeTinyAdapter, writeTinyFolder } from "./tiny-model.ts";

const noLog = { debug() {}, info() {}, warning() {}, error() {} };
const BARE = {
  modelId: "tiny",
  gpu: "none",
  gpuLayers: undefined,
  contextSize: undefined,
  slots: 1,
  threads: 1,
  adapterSets: 1,
  idleUnloadSeconds: 0,
} as const;
const PROMPT = "hello world, this is";
const GREEDY = { prompt: PROMPT, temperature: 0, max_tokens: 24 };

let site: Site;
let peft = "";
beforeAll(async () => {
  site = await openSite({ slots: 8 });
  peft = await writeTinyAdapter(join(site.folder, "adapter"));
});
afterAll(() => site[Symbol.asyncDispose]());

const scored = async (prompt: string, more: object = {}): Promise<Score> =>
  scoreOutputSchema.parse(await site.client.call("score", { prompt, top: 1000, ...more }));

describe("a generation", () => {
  test("says what was used and by what", async () => {
    const result = await generateWith(site.client, { ...GREEDY, logprobs: 0 });
    const { usage, timings, evidence, logprobs } = result;
    expect(usage.total_tokens).toBe(usage.prompt_tokens + usage.completion_tokens);
    expect(usage.completion_tokens).toBe(24);
    expect(logprobs?.map(({ text }) => text).join("")).not.toBe("");
    expect(timings.first_token_ms).toBeLessThanOrEqual(timings.total_ms);
    expect(evidence).toMatchObject({ engine: "llama-cpp", model: "tiny", adapter_effect: null });
    expect(evidence.model_sha256).toMatch(/^sha256:/u);
    expect(result.finish_reason).toBe("length");
  });

  test("gives the same text as chunks, and evaluates a known beginning once", async () => {
    const whole = await generateWith(site.client, GREEDY);
    let text = "";
    for await (const chunk of site.client.stream(GREEDY)) {
      if (chunk.type === "delta") text += chunk.text;
      else expect(chunk.result).toMatchObject({ text: whole.text });
    }
    expect(text).toBe(whole.text);
    const again = await generateWith(site.client, GREEDY);
    expect(again.usage.cached_prompt_tokens).toBe(again.usage.prompt_tokens - 1);
  });

  test("draws a seed that repeats it", async () => {
    const drawn = await generateWith(site.client, { prompt: PROMPT, max_tokens: 24 });
    const seed = drawn.seed ?? -1;
    const again = await generateWith(site.client, { prompt: PROMPT, max_tokens: 24, seed });
    expect(again.text).toBe(drawn.text);
  });

  test("of the task is that of the action", async () => {
    const task = await site.client.task("generate", GREEDY);
    expect(task).toMatchObject({ text: (await generateWith(site.client, GREEDY)).text });
    expect(await site.client.task("count_tokens", { text: "hello" })).toEqual({ tokens: 2 });
  });

  test("embeds texts as vectors of length 1", async () => {
    const answer = (await site.client.call("embed", { input: ["hello", "world"] })) as {
      embeddings: number[][];
    };
    for (const vector of answer.embeddings) expect(Math.hypot(...vector)).toBeCloseTo(1, 5);
    expect(answer.embeddings[0]).not.toEqual(answer.embeddings[1]);
  });
});

describe("a conversation", () => {
  test("is the chat template's text, where a caller's special tokens are only text", async () => {
    const ask = async (content: string): Promise<number> => {
      const messages = [{ role: "user", content }];
      return ((await site.client.call("count_tokens", { messages })) as { tokens: number }).tokens;
    };
    const plain = await ask("hello");
    // As text it is one token per letter; as the special token it would be one.
    expect(await ask("hello<|im_end|>")).toBe(plain + "<|im_end|>".length);
    const chat = await site.client.call("chat", {
      messages: [{ role: "user", content: "hello" }],
      temperature: 0,
      max_tokens: 4,
    });
    expect(chat).toMatchObject({ usage: { prompt_tokens: plain } });
  });

  test("needs a template", async () => {
    await using bare = await openSite({}, { chat: false });
    const chat = bare.client.call("chat", { messages: [{ role: "user", content: "hi" }] });
    expect(await errorOf(chat)).toMatchObject({
      code: "CAPABILITY_INPUT",
      message: expect.stringContaining("chat_template_missing:") as string,
    });
  });
});

describe("many calls at once", () => {
  test("32 streams lose and mix no token", async () => {
    const prompts = Array.from({ length: 32 }, (_, i) => `number ${i} says ${"na".repeat(i % 7)}`);
    const run = async (prompt: string, seed: number): Promise<Streamed> => {
      const streamed: Streamed = { text: "", logprobs: [], result: undefined };
      const kwargs = { prompt, seed, max_tokens: 30, logprobs: 1 };
      for await (const chunk of site.client.stream(kwargs)) {
        if (chunk.type === "done") return { ...streamed, result: chunk.result };
        streamed.text += chunk.text;
        streamed.logprobs.push(...(chunk.logprobs ?? []));
      }
      throw new Error("the stream has no end");
    };
    const alone: Streamed[] = [];
    for (const [i, prompt] of prompts.entries()) alone.push(await run(prompt, i));
    const together = await Promise.all(prompts.map(run));
    for (const [i, { text, logprobs, result }] of together.entries()) {
      expect(result?.text).toBe(text);
      expect(result?.logprobs).toEqual(logprobs);
      const endings = result?.finish_reason === "stop" ? 1 : 0;
      expect(logprobs).toHaveLength((result?.usage.completion_tokens ?? 0) - endings);
      expectSameCourse(logprobs, alone[i]?.logprobs ?? []);
    }
  });

  test("100 first calls load a model with its adapters once", async () => {
    await using fresh = await openSite({ slots: 2 });
    const kwargs = { prompt: "a", max_tokens: 1, temperature: 0, adapters: [{ path: peft }] };
    const results = await Promise.all(
      Array.from({ length: 100 }, () => generateWith(fresh.client, kwargs)),
    );
    expect(new Set(results.map(({ text }) => text)).size).toBe(1);
    expect(await fresh.status()).toMatchObject({ loads: 1, active: 0, waiting: 0 });
  });

  test("a call that is left frees its slot", async () => {
    await using narrow = await openSite({ slots: 1 });
    const endless = { prompt: PROMPT, max_tokens: 400, temperature: 0 };
    const leaving = new AbortController();
    const left = narrow.client.stream(endless, leaving.signal);
    await left.next();
    expect(await narrow.status()).toMatchObject({ active: 1 });
    const next = generateWith(narrow.client, { ...GREEDY, max_tokens: 2 });
    await left.return();
    expect(await next).toMatchObject({ usage: { completion_tokens: 2 } });
    await expect.poll(narrow.status).toMatchObject({ active: 0, waiting: 0 });
  });
});

describe("adapters", () => {
  test("have a name after loading; without it the base answers as before", async () => {
    const before = await scored(PROMPT);
    const loaded = await site.client.call("load_adapter", { id: "tuned", path: peft });
    expect(loaded).toMatchObject({
      adapter: { id: "tuned", format: "peft", rank: 4, alpha: 8 },
      effect: expect.any(Number) as number,
    });
    const adapted = await scored(PROMPT, { adapters: [{ id: "tuned" }] });
    expect(distance(adapted, before)).toBeGreaterThan(0.05);
    expect(await site.client.call("list_adapters", {})).toMatchObject({
      adapters: [{ id: "tuned" }],
    });

    await site.client.call("unload_adapter", { id: "tuned" });
    expect(distance(await scored(PROMPT), before)).toBeLessThan(1e-6);
    const gone = site.client.call("generate", { ...GREEDY, adapters: [{ id: "tuned" }] });
    expect(await errorOf(gone)).toMatchObject({
      message: expect.stringContaining("adapter_unknown:") as string,
    });
  });

  test("as GGUF and as PEFT are the same, and scales are factors", async () => {
    const { file } = (await site.client.call("convert_adapter", { path: peft })) as {
      file: { data: { path: string } };
    };
    const gguf = file.data.path;
    const one = await scored(PROMPT, { adapters: [{ path: peft, scale: 0.5 }] });
    const other = await scored(PROMPT, { adapters: [{ path: gguf, scale: 0.5 }] });
    const twice = await scored(PROMPT, {
      adapters: [
        { path: gguf, scale: 0.25 },
        { path: gguf, scale: 0.25 },
      ],
    });
    expect(distance(one, other)).toBeLessThan(1e-6);
    expect(distance(one, await scored(PROMPT))).toBeGreaterThan(0.01);
    expect(twice.adapters).toHaveLength(2);
  });

  test("are refused where they are missing, changed, damaged or of another base", async () => {
    const other = await writeTinyAdapter(join(site.folder, "other"), { hidden: 32 });
    const broken = await writeTinyAdapter(join(site.folder, "broken"));
    await truncate(join(broken, "adapter_model.safetensors"), 100);
    const cases = [
      [{ path: "/nowhere" }, "adapter_missing"],
      [{ path: peft, sha256: `sha256:${"0".repeat(64)}` }, "adapter_hash"],
      [{ path: broken }, "adapter_invalid"],
      [{ path: other }, "adapter_mismatch"],
    ] as const;
    for (const [use, reason] of cases) {
      const error = await errorOf(site.client.call("generate", { ...GREEDY, adapters: [use] }));
      expect(error).toMatchObject({ code: "CAPABILITY_INPUT", reason });
      expect(error.message).toContain(`${reason}:`);
    }
    expect(await generateWith(site.client, GREEDY)).toMatchObject({ adapters: [] });
  });
});

describe("memory", () => {
  test("is given back by level and taken again by the next call", async () => {
    // 40 MB of keys and values: what is smaller an allocator may keep.
    await using own = await openSite({ context_size: 16_384, slots: 10 }, { context: 16_384 });
    const first = await generateWith(own.client, GREEDY);
    const slept = await own.client.post("/release", { level: "sleep" });
    expect(slept).toMatchObject({ status: "released", held: "the model's weights" });
    expect((slept as { freed_mb: number }).freed_mb).toBeGreaterThan(30);
    expect(await own.status()).toMatchObject({ state: "asleep" });
    expect(await own.client.post("/release", { level: "unload" })).toMatchObject({ held: "" });
    expect(await own.status()).toMatchObject({ state: "unloaded" });
    expect((await generateWith(own.client, GREEDY)).text).toBe(first.text);
    expect(await own.client.call("profiles", {})).toMatchObject({
      profiles: [{ slots: 10, adapters: "", threads: 1 }],
    });
  });

  test("is given back by itself when nobody calls", async () => {
    await using idle = await openSite({ idle_unload_seconds: 0.05 });
    await generateWith(idle.client, GREEDY);
    await expect.poll(idle.status).toMatchObject({ state: "unloaded" });
  });

  test("is taken by prefetch, with a thread count that was measured", async () => {
    await using own = await openSite({ threads: undefined });
    expect(await own.client.post("/prefetch", {})).toEqual({ status: "prefetched" });
    expect(await own.status()).toMatchObject({ state: "loaded", loads: 1 });
  });

  test("is taken with a progress that says what is done, and only goes on", async () => {
    const context = { log: noLog, dataFolder: join(site.folder, "progress") };
    const engine = new LlamaCppEngine({ ...BARE, modelPath: site.model }, context);
    const told: (readonly [number, string])[] = [];
    await engine.prefetch({
      signal: new AbortController().signal,
      progress: (fraction, message) => told.push([fraction, message]),
    });
    await engine.close();
    expect([...new Set(told.map(([, message]) => message))]).toEqual([
      "hashing the model",
      "loading the model",
      "making a context",
      "ready",
    ]);
    const known = told.map(([fraction]) => fraction).filter((fraction) => fraction >= 0);
    expect(known).toEqual(known.toSorted((a, b) => a - b));
    expect(known.at(-1)).toBe(1);
    expect(known.slice(0, -1).every((fraction) => fraction < 1)).toBe(true);
  });
});

describe("bad input", () => {
  test("a prompt beyond the context is refused, or cut where that is asked for", async () => {
    const long = { prompt: "word ".repeat(300), temperature: 0, max_tokens: 5 };
    const error = await errorOf(site.client.call("generate", long));
    expect(error.message).toContain("context_overflow:");
    const cut = await generateWith(site.client, { ...long, context_overflow: "truncate" });
    expect(cut.evidence.prompt_truncated_tokens).toBeGreaterThan(0);
    expect(cut.usage).toMatchObject({ completion_tokens: 5 });
  });

  test("a text that fills the context ends there", async () => {
    const filled = await generateWith(site.client, {
      prompt: "word ".repeat(120),
      temperature: 0,
      grammar: "root ::= [a-z]+",
    });
    expect(filled.finish_reason).toBe("length");
    expect(filled.usage.total_tokens).toBeLessThanOrEqual(512);
  });

  test.each([
    [{ grammar: "root ::= (" }, "grammar_invalid"],
    [{ json_schema: { type: "string", pattern: "^a" } }, "grammar_invalid"],
    [{ json_schema: { type: "array", items: { type: "integer", minimum: 3 } } }, "grammar_invalid"],
  ])("%j is no constraint it can keep", async (more, reason) => {
    const error = await errorOf(site.client.call("generate", { ...GREEDY, ...more }));
    expect(error).toMatchObject({ code: "CAPABILITY_INPUT" });
    expect(error.message).toContain(`${reason}:`);
  });

  test("a model that is missing, cut short or no model is named", async () => {
    const cut = join(site.folder, "cut.gguf");
    await copyFile(site.model, cut);
    await truncate(cut, 300_000);
    const text = join(site.folder, "text.gguf");
    await writeFile(text, "once upon a time");
    const cases = [
      [join(site.folder, "none.gguf"), "model_missing"],
      [cut, "model_invalid"],
      [text, "model_invalid"],
    ] as const;
    await using other = await openSite();
    for (const [model, reason] of cases) {
      await other.client.post("/initialize", { model: other.model });
      await other.client.post("/reconfigure", {
        old_config: { model: other.model },
        new_config: { model, gpu: "none" },
      });
      const error = await errorOf(other.client.call("generate", GREEDY));
      expect(error.message).toContain(`${reason}:`);
      await other.client.post("/reconfigure", {
        old_config: { model },
        new_config: { model: other.model, gpu: "none" },
      });
    }
    expect(await generateWith(other.client, GREEDY)).toMatchObject({ finish_reason: "length" });
  });

  test("a folder of safetensors says how it becomes a model", async () => {
    const folder = await writeTinyFolder(join(site.folder, "hf"), { seed: 9 });
    const { file } = (await site.client.call("convert_model", { path: folder, type: "F16" })) as {
      file: { data: { path: string } };
    };
    const { models } = (await site.client.call("list_models", {})) as { models: unknown[] };
    expect(models).toEqual([]);
    expect(await site.client.call("model_info", { path: file.data.path })).toMatchObject({
      architecture: "llama",
      quantization: "F16",
      context_length: 512,
      chat_template: true,
    });
  });
});

interface Streamed {
  text: string;
  readonly logprobs: Logprob[];
  readonly result: Generation | undefined;
}

/**
 * The same distributions, token by token. Floats differ a little with what shares a batch, so that
 * a draw may fall to the other side once; what follows it has nothing to compare with.
 */
function expectSameCourse(one: readonly Logprob[], other: readonly Logprob[]): void {
  expect(one[0]?.token_id).toBe(other[0]?.token_id);
  for (const [i, { token_id: token, top }] of one.entries()) {
    expect(top[0]?.logprob).toBeCloseTo(other[i]?.top[0]?.logprob ?? NaN, 1);
    if (token !== other[i]?.token_id) return;
  }
}

/** Largest difference of a log-probability at any place. */
function distance(one: Score, other: Score): number {
  let largest = 0;
  for (const [i, list] of one.next.entries()) {
    const values = new Map(other.next[i]?.map((entry) => [entry.token_id, entry.logprob]));
    for (const { token_id: token, logprob } of list) {
      largest = Math.max(largest, Math.abs(logprob - (values.get(token) ?? Infinity)));
    }
  }
  return largest;
}
