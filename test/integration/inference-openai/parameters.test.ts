import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createCapability } from "../../../workers/inference/capability.ts";
import { SERVER_KINDS, type ServerKind } from "../../../workers/inference/openai/config.ts";
import { PARAMETER_NAMES, type ParameterName } from "../../../workers/inference/task/parameters.ts";
import { errorOf, inProcess, type TextClient } from "../../support/text-generation.ts";
import { writeTinyAdapter } from "../inference/tiny-model.ts";
import { startLlama } from "./stubs/llama-stub.ts";
import { startOllama } from "./stubs/ollama-stub.ts";
import { completions, models, SCRIPT } from "./stubs/openai-stub.ts";
import { StubServer } from "./stubs/stub-server.ts";
import { startVllm } from "./stubs/vllm-stub.ts";

const SCHEMA = { type: "object" };
const GRAMMAR = 'root ::= "a"';

/** A value that is not the neutral one. */
const GIVEN: Readonly<Record<ParameterName, unknown>> = {
  temperature: 0.5,
  top_p: 0.25,
  top_k: 3,
  min_p: 0.125,
  repetition_penalty: 1.5,
  presence_penalty: 1,
  frequency_penalty: -1,
  stop: ["x"],
  seed: 7,
  max_tokens: 3,
  logprobs: 2,
  json_schema: SCHEMA,
  grammar: GRAMMAR,
  adapters: [],
};

/** Where each server's request has the parameter; a name that is missing here is refused. */
const WIRE: Readonly<Record<ServerKind, Partial<Record<ParameterName, object>>>> = {
  generic: {
    temperature: { temperature: 0.5 },
    top_p: { top_p: 0.25 },
    presence_penalty: { presence_penalty: 1 },
    frequency_penalty: { frequency_penalty: -1 },
    stop: { stop: ["x"] },
    seed: { seed: 7 },
    max_tokens: { max_tokens: 3 },
    logprobs: { logprobs: true, top_logprobs: 2 },
    json_schema: {
      response_format: {
        type: "json_schema",
        json_schema: { name: "result", schema: SCHEMA, strict: true },
      },
    },
  },
  vllm: {
    temperature: { temperature: 0.5 },
    top_p: { top_p: 0.25 },
    top_k: { top_k: 3 },
    min_p: { min_p: 0.125 },
    repetition_penalty: { repetition_penalty: 1.5 },
    presence_penalty: { presence_penalty: 1 },
    frequency_penalty: { frequency_penalty: -1 },
    stop: { stop: ["x"] },
    seed: { seed: 7 },
    max_tokens: { max_tokens: 3 },
    logprobs: { logprobs: true, top_logprobs: 2, return_token_ids: true },
    json_schema: { structured_outputs: { json: SCHEMA } },
    grammar: { structured_outputs: { grammar: GRAMMAR } },
    adapters: { model: expect.stringMatching(/^cjm-[0-9a-f]{32}$/u) as string },
  },
  ollama: {
    temperature: { options: { temperature: 0.5 } },
    top_p: { options: { top_p: 0.25 } },
    top_k: { options: { top_k: 3 } },
    min_p: { options: { min_p: 0.125 } },
    repetition_penalty: { options: { repeat_penalty: 1.5, repeat_last_n: -1 } },
    stop: { options: { stop: ["x"] } },
    seed: { options: { seed: 7 } },
    max_tokens: { options: { num_predict: 3 } },
    logprobs: { logprobs: true, top_logprobs: 2 },
    json_schema: { format: SCHEMA },
  },
  "llama-server": {
    temperature: { temperature: 0.5 },
    top_p: { top_p: 0.25 },
    top_k: { top_k: 3 },
    min_p: { min_p: 0.125 },
    repetition_penalty: { repeat_penalty: 1.5 },
    stop: { stop: ["x"] },
    seed: { seed: 7 },
    max_tokens: { n_predict: 3 },
    logprobs: { n_probs: 2 },
    json_schema: { json_schema: SCHEMA },
    grammar: { grammar: GRAMMAR },
  },
};

/** Endpoints that generate. */
const GENERATING = new Set(["/v1/chat/completions", "/api/chat", "/completion"]);
const MESSAGES = [{ role: "user", content: "Hi" }];

const chatLogprobs = (piece: string): object => ({ content: [{ token: piece, logprob: -0.5 }] });
const script = (body: { logprobs?: unknown; response_format?: unknown }) => ({
  ...SCRIPT,
  pieces: ["{", "}"],
  ...(body.logprobs === true ? { logprobs: chatLogprobs } : {}),
});
const START: Readonly<Record<ServerKind, () => Promise<StubServer>>> = {
  generic: () =>
    StubServer.start({
      "GET /v1/models": models({ id: "tiny" }),
      ...completions(({ body }) => script(body)),
    }),
  vllm: () =>
    startVllm({}, (body) => (typeof body.logprobs === "number" ? { pieces: ["a"] } : script(body))),
  ollama: () => startOllama({ pieces: ["{", "}"] }),
  "llama-server": () => startLlama([], { pieces: ["{", "}"] }),
};

describe.each(SERVER_KINDS)("every parameter is sent or refused by name: %s", (server) => {
  let stub: StubServer;
  let client: TextClient;
  let folder = "";
  let adapter = "";

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "cjm-inference-"));
    adapter = await writeTinyAdapter(join(folder, "adapter"));
    stub = await START[server]();
    client = inProcess(createCapability(), { data: join(folder, "data"), output: folder });
    const openai = { server, base_url: stub.url, model: "tiny" };
    await client.post("/initialize", { engine: "openai", openai });
  });
  afterAll(async () => {
    await client.post("/cleanup", {});
    await stub[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true });
  });

  it.each(PARAMETER_NAMES)("%s", async (name) => {
    const given = name === "adapters" ? [{ path: adapter }] : GIVEN[name];
    const asked = { messages: MESSAGES, max_tokens: 8, [name]: given };
    const expected = WIRE[server][name];
    if (expected === undefined) {
      const error = await errorOf(client.call("chat", asked));
      expect(error.code).toBe("CAPABILITY_INPUT");
      expect(error.fields_invalid).toContain(name);
      return;
    }
    await client.call("chat", asked);
    const sent = stub.received.findLast(({ path }) => GENERATING.has(path));
    expect(sent?.body).toMatchObject(expected);
  });

  it("sends no constraint that nobody asked for", async () => {
    await client.call("chat", { messages: MESSAGES, max_tokens: 8 });
    const sent = stub.received.findLast(({ path }) => GENERATING.has(path))?.body;
    for (const field of ["grammar", "format", "json_schema", "response_format", "logprobs"]) {
      expect(sent).not.toHaveProperty(field);
    }
  });
});
