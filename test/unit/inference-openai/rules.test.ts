import { describe, expect, it } from "vitest";
import {
  addressOf,
  openAiConfigSchema,
  type OpenAiConfig,
} from "../../../workers/inference/openai/config.ts";
import { fitPrompt } from "../../../workers/inference/openai/dialects/llama-control.ts";
import { largestChange } from "../../../workers/inference/openai/dialects/probe.ts";
import { reasonOf } from "../../../workers/inference/openai/failure.ts";
import { Gate } from "../../../workers/inference/openai/gate.ts";
import { readRefusal, refusalError } from "../../../workers/inference/openai/http/refusal.ts";
import { Pieces } from "../../../workers/inference/openai/pieces.ts";

const NEVER = new AbortController().signal;
const parse = (config: object): OpenAiConfig => openAiConfigSchema.parse(config);

describe("a server's address", () => {
  it.each([
    ["http://h:1", "http://h:1", "http://h:1/v1"],
    ["http://h:1/v1/", "http://h:1", "http://h:1/v1"],
    ["https://h/models/v1", "https://h/models", "https://h/models/v1"],
  ])("%s has its own endpoints at the root", (base_url, root, api) => {
    expect(addressOf(parse({ base_url }), undefined)).toEqual({ root, api });
  });

  it("is the usual one of its kind, or a managed server's port", () => {
    const managed = { command: ["vllm"] };
    expect(addressOf(parse({ server: "vllm" }), undefined).root).toBe("http://127.0.0.1:8000");
    expect(addressOf(parse({ server: "vllm", managed }), 4711).root).toBe("http://127.0.0.1:4711");
    const config = parse({ server: "vllm", managed, base_url: "http://localhost:{port}/x/v1" });
    expect(addressOf(config, 4711).root).toBe("http://localhost:4711/x");
  });

  it.each([
    [{}, "base_url"],
    [{ server: "ollama" }, "model"],
    [{ base_url: "http://h:{port}" }, "base_url"],
    [{ base_url: "file:///etc" }, "base_url"],
    [{ base_url: "http://h", speed: 1 }, "speed"],
  ])("%j is refused for its %s", (config, field) => {
    const { error } = openAiConfigSchema.safeParse(config);
    expect(JSON.stringify(error?.issues)).toContain(field);
  });
});

describe("a prompt that is too long", () => {
  const tokens = [1, 10, 11, 12, 13];
  const fit = (context: number, overflow: "refuse" | "truncate", beginning = [1]) =>
    fitPrompt(tokens, beginning, { context, maxTokens: 2, overflow });

  it("stays whole where it fits", () => {
    expect(fit(7, "refuse")).toEqual(tokens);
  });
  it("loses its oldest tokens behind the beginning", () => {
    expect(fit(5, "truncate")).toEqual([1, 12, 13]);
    expect(fit(5, "truncate", [])).toEqual([11, 12, 13]);
  });
  it("is refused where it may not, or where nothing would be left", () => {
    expect(() => fit(6, "refuse")).toThrow("exceed the context of 6");
    expect(() => fit(3, "truncate")).toThrow("exceed the context of 3");
  });
});

describe("the change between two distributions", () => {
  const before = new Map([
    ["a", -0.1],
    ["b", -3],
  ]);
  it("is the largest of its tokens'", () => {
    expect(largestChange(before, before)).toBe(0);
    expect(largestChange(before, new Map(before).set("b", -2.5))).toBeCloseTo(0.5);
  });
  it("counts a token that one side lacks by what it is at least", () => {
    const after = new Map([
      ["c", -0.2],
      ["b", -3],
    ]);
    expect(largestChange(before, after)).toBeCloseTo(2.9);
  });
});

describe("a gate", () => {
  it("lets calls in by their order, as many as it has places", async () => {
    const gate = new Gate(1);
    const order: string[] = [];
    const first = await gate.enter(NEVER);
    const entered = ["b", "c"].map(async (name) => {
      using _place = await gate.enter(NEVER);
      order.push(name);
    });
    expect([gate.active, gate.waiting]).toEqual([1, 2]);
    first[Symbol.dispose]();
    first[Symbol.dispose]();
    await Promise.all(entered);
    expect(order).toEqual(["b", "c"]);
    expect([gate.active, gate.waiting]).toEqual([0, 0]);
  });

  it("closes when everybody has left, and opens again", async () => {
    const gate = new Gate(2);
    const place = await gate.enter(NEVER);
    const closing = gate.drain(20_000);
    const waiting = gate.enter(NEVER);
    expect([gate.active, gate.waiting]).toEqual([1, 1]);
    place[Symbol.dispose]();
    const closed = await closing;
    expect([gate.active, gate.waiting]).toEqual([0, 1]);
    closed[Symbol.dispose]();
    (await waiting)[Symbol.dispose]();
    expect(gate.active).toBe(0);
  });

  it("is open after it could not be emptied in time", async () => {
    const gate = new Gate(1);
    using _place = await gate.enter(NEVER);
    await expect(gate.drain(5)).rejects.toThrow("1 calls still ran");
    gate.resize(2);
    using _other = await gate.enter(NEVER);
    expect(gate.active).toBe(2);
  });
});

describe("what a server says when it refuses", () => {
  it.each([
    [400, '{"error":{"message":"m","type":"invalid_request_error","param":"top_k"}}', ["top_k"]],
    [400, '{"object":"error","message":"m","type":"BadRequestError","param":"stop"}', ["stop"]],
    [422, '{"detail":[{"loc":["body","messages"]}]}', []],
    [400, '{"error":"m"}', []],
    [400, "no JSON at all", []],
  ])("%i %s is the caller's fault", (status, body, fields) => {
    const error = refusalError(readRefusal(status, body), "/x");
    expect(error).toMatchObject({ code: "CAPABILITY_INPUT", fieldsInvalid: fields });
  });

  it.each([
    ["exceed_context_size_error", "context_overflow"],
    ["maximum context length is 8 tokens", "context_overflow"],
    ["torch.OutOfMemoryError: CUDA out of memory.", "memory"],
    ["model requires more system memory than is available", "memory"],
    ["failed to parse grammar", "grammar_invalid"],
    ["EngineCore encountered an issue", "engine_crashed"],
    ["Internal Server Error", "server_error"],
  ])("%s is told by its words", (message, reason) => {
    const error = refusalError(readRefusal(500, JSON.stringify({ error: { message } })), "/x");
    expect(reasonOf(error)).toBe(reason);
  });

  it("is cut to a length that fits into a message", () => {
    const refusal = readRefusal(500, "x".repeat(10_000));
    expect(refusal.message).toContain("(10000 characters)");
    expect(refusal.message.length).toBeLessThan(400);
  });
});

describe("pieces of a text", () => {
  it("never leave as half a character", () => {
    const pieces = new Pieces();
    const [first = "", second = ""] = "🙂".split("");
    expect(pieces.take({ text: `a${first}` })).toEqual({ type: "delta", text: "a" });
    expect(pieces.take({ text: `${second}b` })).toEqual({ type: "delta", text: "🙂b" });
    expect(pieces.end()).toBeUndefined();
    expect(pieces.text).toBe("a🙂b");
  });

  it("end whole even if the server does not", () => {
    const pieces = new Pieces();
    expect(pieces.take({ text: "\uD83D" })).toBeUndefined();
    expect(pieces.end()).toEqual({ type: "delta", text: "\uFFFD" });
  });
});
