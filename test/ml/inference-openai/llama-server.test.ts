import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openAiConfigSchema } from "../../../workers/inference/openai/config.ts";
import { ServerConnection } from "../../../workers/inference/openai/connection.ts";
import { LlamaControl } from "../../../workers/inference/openai/dialects/llama-control.ts";
import type { Generation } from "../../../workers/inference/task/schemas.ts";
import { describeParameters } from "../../support/text-generation-contract.ts";
import { errorOf, generateWith } from "../../support/text-generation.ts";
import { makeSite, serve, type Served, type Site } from "./site.ts";

const PROMPT = "hello world, this is";
/** Tokens of a stream that is not over when somebody ends it. */
const LONG = 4000;
const KEY = "the key of this test's server";
const NEVER = new AbortController().signal;

let site: Site;
/** The worker, with the real server as its child. */
let native: Served;
/** Another one, with two calls at once. */
let parallel: Served;
/** One that knows the same server's OpenAI API only. */
let generic: Served;
/** The same weights in the worker's own process. */
let embedded: Served;
let url = "";

beforeAll(async () => {
  site = await makeSite();
  process.env["INFERENCE_SERVER_API_KEY"] = KEY;
  const port = 20_000 + (process.pid % 20_000);
  url = `http://127.0.0.1:${port}`;
  const command = site.command.map((part) => part.replace("{port}", String(port)));
  native = await serve(site, {
    engine: "openai",
    // One call at a time: two at once share a batch, which changes last digits.
    openai: { server: "llama-server", base_url: url, managed: { command }, max_concurrent: 1 },
  });
  await native.client.post("/prefetch", {});
  const unmanaged = { engine: "openai", openai: { server: "llama-server", base_url: url } };
  parallel = await serve(site, unmanaged);
  generic = await serve(site, { engine: "openai", openai: { base_url: url, max_concurrent: 1 } });
  embedded = await serve(site, { model: site.model, gpu: "none", threads: 1 });
}, 600_000);

afterAll(async () => {
  for (const served of [generic, parallel, embedded, native]) await served[Symbol.asyncDispose]();
  delete process.env["INFERENCE_SERVER_API_KEY"];
  site.remove();
});

describe("the real llama-server", () => {
  describeParameters({
    client: () => native.client,
    honours: () => native.honours(),
    adapterPath: () => site.adapters[0],
    prompt: PROMPT,
  });

  test("says what the same weights say in this process", async () => {
    const asked = { prompt: PROMPT, temperature: 0, max_tokens: 24, logprobs: 5 };
    const theirs = await generateWith(native.client, asked);
    const ours = await generateWith(embedded.client, asked);
    expect(theirs.text).toBe(ours.text);
    expect(theirs.usage).toMatchObject({
      prompt_tokens: ours.usage.prompt_tokens,
      completion_tokens: ours.usage.completion_tokens,
    });
    console.log(`log-probabilities differ by ${largestDifference(theirs, ours)} from llama-cpp's`);
    expect(largestDifference(theirs, ours)).toBeLessThan(1e-3);
  });

  test("applies two adapters with scales, and none to the next call", async () => {
    const ask = (adapters: object[]): Promise<Generation> =>
      generateWith(native.client, { prompt: PROMPT, temperature: 0, max_tokens: 24, adapters });
    const [first, second] = site.adapters;
    const bare = await ask([]);
    const both = await ask([
      { path: first, scale: 0.5 },
      { path: second, scale: -1 },
    ]);
    const one = await ask([{ path: first }]);
    expect(new Set([bare.text, both.text, one.text]).size).toBe(3);
    expect((await ask([])).text).toBe(bare.text);
    expect(both.adapters.map(({ scale }) => scale)).toEqual([0.5, -1]);
    console.log(
      `adapter effects ${one.evidence.adapter_effect} and ${both.evidence.adapter_effect}`,
    );
  });

  test("answers nobody without the key that it was given", async () => {
    const response = await fetch(`${url}/completion`, { method: "POST", body: "{}" });
    expect(response.status).toBe(401);
  });

  test("keeps eight concurrent streams apart", async () => {
    const ask = (at: number): Promise<Generation> =>
      generateWith(parallel.client, { prompt: `call ${at}:`, temperature: 0, max_tokens: 16 });
    const alone: string[] = [];
    for (let at = 0; at < 8; at += 1) alone.push((await ask(at)).text);
    const together = await Promise.all(alone.map((_, at) => ask(at)));
    expect(together.map(({ text }) => text)).toEqual(alone);
  });

  test("frees the slot of an aborted stream", async () => {
    await using connection = openControl();
    const control = new LlamaControl(connection.link);
    const controller = new AbortController();
    const chunks = native.client.stream(
      { prompt: PROMPT, max_tokens: LONG, temperature: 0 },
      controller.signal,
    );
    await chunks.next();
    expect(await control.busySlots(NEVER)).toBe(1);
    const start = performance.now();
    controller.abort();
    await chunks.return().catch(() => undefined);
    while ((await control.busySlots(NEVER)) > 0);
    console.log(`an aborted stream's slot was free after ${performance.now() - start} ms`);
  });

  test("refuses a context overflow, and drops the oldest tokens where it may", async () => {
    const asked = { prompt: "long ".repeat(1000), max_tokens: 8, temperature: 0 };
    const error = await errorOf(native.client.call("generate", asked));
    expect(error).toMatchObject({ code: "CAPABILITY_INPUT", fields_invalid: ["max_tokens"] });
    const cut = await generateWith(native.client, { ...asked, context_overflow: "truncate" });
    expect(cut.evidence.prompt_truncated_tokens).toBeGreaterThan(0);
    expect(cut.usage.prompt_tokens).toBe(4088);
  });

  test("is asked for a bad grammar, an unknown adapter and a chat", async () => {
    const bad = await errorOf(
      native.client.call("generate", { prompt: "x", max_tokens: 4, grammar: "root ::= (" }),
    );
    expect(bad.message).toContain("grammar_invalid");
    const unknown = { prompt: "x", adapters: [{ id: "nobody" }] };
    const missing = await errorOf(native.client.call("generate", unknown));
    expect(missing.message).toContain("adapter_unknown");
    const messages = [{ role: "user", content: "Hi" }];
    const chat = (await native.client.call("chat", { messages, max_tokens: 4 })) as Generation;
    expect(chat.usage.completion_tokens).toBeLessThanOrEqual(4);
    const counted = (await native.client.call("count_tokens", { messages })) as { tokens: number };
    expect(counted.tokens).toBe(chat.usage.prompt_tokens);
  });
});

describe("a real server with the OpenAI API", () => {
  describeParameters({
    client: () => generic.client,
    // OpenAI has schemas for conversations only, and the suite asks for a prompt's.
    honours: () => new Set([...generic.honours()].filter((name) => name !== "json_schema")),
    adapterPath: () => site.adapters[0],
    prompt: PROMPT,
    tellsStops: false,
  });

  test("streams a chat", async () => {
    const messages = [{ role: "user", content: "Hi" }];
    let text = "";
    for await (const chunk of generic.client.stream({ messages, max_tokens: 8, temperature: 0 })) {
      if (chunk.type === "delta") text += chunk.text;
      else expect(chunk.result.text).toBe(text);
    }
  });
});

describe("the real server's end", () => {
  test("is named, and the next call starts it again", async () => {
    const pid = serverPid();
    const chunks = native.client.stream({ prompt: PROMPT, max_tokens: LONG, temperature: 0 });
    await chunks.next();
    const start = performance.now();
    process.kill(pid, "SIGKILL");
    const error = await errorOf(Array.fromAsync(chunks));
    console.log(`the server's death was an error after ${performance.now() - start} ms`);
    expect(error).toMatchObject({ code: "CAPABILITY_TRANSIENT" });
    expect(error.message).toContain("SIGKILL");
    const again = await generateWith(native.client, { prompt: PROMPT, max_tokens: 3 });
    expect(again.usage.completion_tokens).toBe(3);
  });
});

function serverPid(): number {
  return Number(readFileSync(`${site.model}.pid`, "utf8"));
}

function openControl(): ServerConnection & AsyncDisposable {
  const config = openAiConfigSchema.parse({ server: "llama-server", base_url: url });
  const connection = new ServerConnection(config, { log: () => undefined, apiKey: KEY });
  return Object.assign(connection, { [Symbol.asyncDispose]: () => connection.close() });
}

function largestDifference(one: Generation, other: Generation): number {
  const differences = (one.logprobs ?? []).map(({ logprob }, at) =>
    Math.abs(logprob - (other.logprobs?.[at]?.logprob ?? Infinity)),
  );
  return Math.max(...differences);
}
