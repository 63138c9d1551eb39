import { readFile } from "node:fs/promises";
import { join } from "node:path";
import OpenAI, { APIError, AuthenticationError } from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { generateWith } from "../../support/text-generation.ts";
import { openSite, type Site } from "./site.ts";
import { writeTinyAdapter } from "./tiny-model.ts";

/** The official client, unchanged, against the worker's own endpoint. */
let site: Site;
let client: OpenAI;
let url = "";
const HELLO = { model: "tiny", messages: [{ role: "user", content: "hello" }] } as const;
const GREEDY = {
  ...HELLO,
  messages: [...HELLO.messages],
  temperature: 0,
  max_completion_tokens: 12,
};

beforeAll(async () => {
  site = await openSite({ slots: 4, endpoint: {} });
  const found = (await site.client.call("endpoint", {})) as { url: string; key_file: string };
  url = found.url;
  const apiKey = await readFile(found.key_file, "utf8");
  client = new OpenAI({ baseURL: url, apiKey, maxRetries: 0 });
});
afterAll(() => site[Symbol.asyncDispose]());

describe("the OpenAI client", () => {
  test("lists the model, and finds it by name", async () => {
    const ids: string[] = [];
    for await (const model of client.models.list()) ids.push(model.id);
    expect(ids).toEqual(["tiny"]);
    expect(await client.models.retrieve("tiny")).toMatchObject({ id: "tiny", object: "model" });
  });

  test("chats", async () => {
    const reply = await client.chat.completions.create({
      ...GREEDY,
      logprobs: true,
      top_logprobs: 2,
    });
    expect(reply).toMatchObject({
      object: "chat.completion",
      model: "tiny",
      choices: [{ finish_reason: "length", message: { role: "assistant" } }],
      usage: { completion_tokens: 12, total_tokens: (reply.usage?.prompt_tokens ?? 0) + 12 },
    });
    const logprobs = reply.choices[0]?.logprobs?.content;
    expect(logprobs).toHaveLength(12);
    expect(logprobs?.[0]?.top_logprobs).toHaveLength(2);
  });

  test("completes, with the fields that the API has not", async () => {
    const expected = await generateWith(site.client, { prompt: "hello", top_k: 1, max_tokens: 8 });
    const ownFields = { top_k: 1 };
    const reply = await client.completions.create({
      model: "tiny",
      prompt: "hello",
      max_tokens: 8,
      ...ownFields,
    });
    expect(reply.choices[0]?.text).toBe(expected.text);
  });

  test("streams a text that is the whole one, with its usage last", async () => {
    const whole = await client.chat.completions.create(GREEDY);
    const stream = await client.chat.completions.create({
      ...GREEDY,
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let tokens = 0;
    const reasons: string[] = [];
    for await (const chunk of stream) {
      const [choice] = chunk.choices;
      text += choice?.delta.content ?? "";
      if (typeof choice?.finish_reason === "string") reasons.push(choice.finish_reason);
      tokens = chunk.usage?.completion_tokens ?? tokens;
    }
    expect({ text, tokens, reasons }).toEqual({
      text: whole.choices[0]?.message.content,
      tokens: 12,
      reasons: ["length"],
    });
  });

  test("that leaves a stream frees its slot", async () => {
    const stream = await client.chat.completions.create({
      ...GREEDY,
      max_completion_tokens: 400,
      stream: true,
    });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content !== "") break;
    stream.controller.abort();
    await expect.poll(site.status).toMatchObject({ active: 0, waiting: 0 });
  });

  test("gets JSON that keeps to a schema, or any object", async () => {
    const schema = {
      type: "object",
      properties: { name: { enum: ["a", "b"] }, count: { type: "null" } },
      required: ["name", "count"],
      additionalProperties: false,
    };
    const reply = await client.chat.completions.create({
      ...GREEDY,
      max_completion_tokens: 100,
      temperature: 1,
      response_format: { type: "json_schema", json_schema: { name: "n", schema, strict: true } },
    });
    const value = JSON.parse(reply.choices[0]?.message.content ?? "") as Record<string, unknown>;
    expect(value["count"]).toBeNull();
    expect(["a", "b"]).toContain(value["name"]);
    const any = await client.chat.completions.create({
      ...GREEDY,
      max_completion_tokens: 3,
      response_format: { type: "json_object" },
    });
    expect(any.choices[0]?.message.content).toMatch(/^\{/u);
  });

  test("gets embeddings", async () => {
    const { data } = await client.embeddings.create({ model: "tiny", input: ["hello", "world"] });
    expect(data.map(({ embedding }) => embedding.length)).toEqual([64, 64]);
    expect(Math.hypot(...(data[0]?.embedding ?? []))).toBeCloseTo(1, 4);
  });

  test("uses a loaded adapter as a model of its own", async () => {
    const path = await writeTinyAdapter(join(site.folder, "adapter"));
    await site.client.call("load_adapter", { id: "tuned", path });
    const base = await client.chat.completions.create(GREEDY);
    const tuned = await client.chat.completions.create({ ...GREEDY, model: "tuned" });
    expect(tuned.choices[0]?.message.content).not.toBe(base.choices[0]?.message.content);
    expect(tuned).toMatchObject({ cjm: { adapters: [{ id: "tuned", scale: 1 }] } });
    await site.client.call("unload_adapter", { id: "tuned" });
  });
});

describe("a refusal", () => {
  const refusal = async (request: Promise<unknown>): Promise<APIError> => {
    const error: unknown = await request.then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    if (error instanceof APIError) return error;
    throw new Error("no refusal", { cause: error });
  };

  test("of a wrong key is an authentication error", async () => {
    const stranger = new OpenAI({ baseURL: url, apiKey: "wrong", maxRetries: 0 });
    expect(await refusal(stranger.chat.completions.create(GREEDY))).toBeInstanceOf(
      AuthenticationError,
    );
  });

  test("of an unknown model, or path, is not found", async () => {
    const unknown = await refusal(client.chat.completions.create({ ...GREEDY, model: "other" }));
    expect(unknown).toMatchObject({ status: 404, code: "model_not_found", param: "model" });
    expect(
      await refusal(client.audio.speech.create({ model: "tiny", input: "a", voice: "alloy" })),
    ).toMatchObject({
      status: 404,
    });
  });

  test.each([
    [{ tools: [] }, "tools", "unsupported_parameter"],
    [{ logit_bias: { 1: 2 } }, "logit_bias", "unsupported_parameter"],
    [{ n: 2 }, "n", "invalid_value"],
    [{ temperature: -1 }, "temperature", "invalid_value"],
    [{ grammar: "root ::= (" }, "grammar", "grammar_invalid"],
    [{ max_completion_tokens: 5000 }, null, "context_length_exceeded"],
  ])("of %j names it", async (more, param, code) => {
    const body = { ...GREEDY, ...more };
    expect(await refusal(client.chat.completions.create(body as never))).toMatchObject({
      status: 400,
      param,
      code,
    });
  });

  test("comes before a stream begins", async () => {
    const request = client.chat.completions.create({
      ...GREEDY,
      max_completion_tokens: 5000,
      stream: true,
    });
    expect(await refusal(request)).toMatchObject({ status: 400, code: "context_length_exceeded" });
  });

  test("of a body that is no JSON, or too long, ends the request only", async () => {
    const headers = { authorization: `Bearer ${client.apiKey}` };
    const post = (body: string): Promise<Response> =>
      fetch(`${url}/chat/completions`, { method: "POST", headers, body });
    expect((await post("{")).status).toBe(400);
    expect((await post(`"${"x".repeat(5_000_000)}"`)).status).toBe(413);
    expect(await client.chat.completions.create(GREEDY)).toMatchObject({
      object: "chat.completion",
    });
  });
});
