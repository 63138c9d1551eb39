import { readFile } from "node:fs/promises";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PARAMETER_NAMES } from "../../../workers/inference/task/parameters.ts";
import type { Generation } from "../../../workers/inference/task/schemas.ts";
import { openSite, type Site } from "../inference/site.ts";
import { describeParameters } from "../../support/text-generation-contract.ts";
import { errorOf, generateWith } from "../../support/text-generation.ts";

/** A worker with llama.cpp that serves the OpenAI API, and one for which it is the server. */
let server: Site;
let client: Site;

const EXTENSIONS = ["top_k", "min_p", "repetition_penalty", "grammar"] as const;
/** OpenAI has schemas for conversations only, and the suite asks for a prompt's. */
const NOT_FOR_PROMPTS: ReadonlySet<string> = new Set(["json_schema", "adapters"]);
const PROMPT = "hello world, this is";

beforeAll(async () => {
  server = await openSite({ endpoint: {}, slots: 2 }, { ascii: true });
  const endpoint = (await server.client.call("endpoint", {})) as { url: string; key_file: string };
  process.env["INFERENCE_SERVER_API_KEY"] = await readFile(endpoint.key_file, "utf8");
  client = await openSite({
    engine: "openai",
    openai: { base_url: endpoint.url, also_honours: EXTENSIONS },
  });
  delete process.env["INFERENCE_SERVER_API_KEY"];
});
afterAll(async () => {
  await client[Symbol.asyncDispose]();
  await server[Symbol.asyncDispose]();
});

describe("a worker behind another worker's endpoint", () => {
  describeParameters({
    client: () => client.client,
    honours: () => new Set(PARAMETER_NAMES.filter((name) => !NOT_FOR_PROMPTS.has(name))),
    adapterPath: () => "/no/adapter",
    prompt: PROMPT,
    tellsStops: false,
  });

  test("says what the other one says", async () => {
    const asked = { prompt: PROMPT, temperature: 0, max_tokens: 24, logprobs: 3 };
    const here = await generateWith(client.client, asked);
    const there = await generateWith(server.client, asked);
    expect(here.text).toBe(there.text);
    expect(here.usage.completion_tokens).toBe(there.usage.completion_tokens);
    expect(here.logprobs?.map(({ logprob }) => logprob)).toEqual(
      there.logprobs?.map(({ logprob }) => logprob),
    );
  });

  test("chats with a schema", async () => {
    const messages = [{ role: "user", content: "Hi" }];
    const asked = { messages, json_schema: { enum: ["yes", "no"] }, max_tokens: 16 };
    const { text } = (await client.client.call("chat", asked)) as Generation;
    expect(["yes", "no"]).toContain(JSON.parse(text));
  });

  test("passes a refusal on with its words", async () => {
    const asked = { prompt: "long ".repeat(400), max_tokens: 8 };
    const error = await errorOf(client.client.call("generate", asked));
    expect(error).toMatchObject({ code: "CAPABILITY_INPUT" });
    expect(error.message).toContain("context_overflow");
  });
});
