import { describe, expect, it } from "vitest";
import { collect, failureOf, NEVER, openEngine, reasonOf } from "./support.ts";
import { chunk, completions, models, SCRIPT, type Script } from "./stubs/openai-stub.ts";
import { events, json, StubServer, type Received, type Route } from "./stubs/stub-server.ts";

const open = (stub: StubServer, config: object = {}) =>
  openEngine({ server: "generic", base_url: `${stub.url}/v1`, ...config });
const serve = (script: Partial<Script> | ((request: Received) => Partial<Script>) = {}) =>
  StubServer.start({
    "GET /v1/models": models({ id: "tiny" }),
    ...completions((request) => ({
      ...SCRIPT,
      ...(typeof script === "function" ? script(request) : script),
    })),
  });
const serveRaw = (route: Route) =>
  StubServer.start({ "GET /v1/models": models({ id: "tiny" }), "POST /v1/completions": route });

describe("a generic server", () => {
  it("streams a prompt and says how it ended", async () => {
    await using stub = await serve();
    await using engine = open(stub);
    const { deltas, result } = await collect(engine, { parameters: { max_tokens: 5, seed: 3 } });
    expect(deltas).toEqual(["Hel", "lo"]);
    expect(result).toMatchObject({
      text: "Hello",
      finish_reason: "stop",
      stop_sequence: null,
      seed: 3,
      usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 },
      adapters: [],
      logprobs: null,
      evidence: { engine: "openai", engine_version: "generic unknown", model: "tiny" },
    });
  });

  it("sends what the OpenAI API has, neutral values included, and nothing else", async () => {
    await using stub = await serve();
    await using engine = open(stub);
    await collect(engine, { chat: "Hi" });
    expect(stub.of("/v1/chat/completions")[0]?.body).toEqual({
      model: "tiny",
      messages: [{ role: "user", content: "Hi" }],
      temperature: 1,
      top_p: 1,
      presence_penalty: 0,
      frequency_penalty: 0,
      max_tokens: 512,
      stream: true,
      stream_options: { include_usage: true },
    });
  });

  it("sends extensions that the operator says it honours", async () => {
    await using stub = await serve();
    await using engine = open(stub, { also_honours: ["top_k", "min_p"] });
    expect(engine.parameters).toContain("top_k");
    await collect(engine, { parameters: { top_k: 7 } });
    expect(stub.of("/v1/completions")[0]?.body).toMatchObject({ top_k: 7, min_p: 0 });
  });

  it("promises neither extensions nor what the operator took away", async () => {
    await using stub = await serve();
    await using engine = open(stub, { does_not_honour: ["seed"] });
    for (const name of ["top_k", "min_p", "repetition_penalty", "grammar", "adapters", "seed"]) {
      expect(engine.parameters).not.toContain(name);
    }
  });

  it("refuses by name what OpenAI limits", async () => {
    await using stub = await serve();
    await using engine = open(stub);
    const asked = {
      parameters: { logprobs: 21 },
      stop: ["a", "b", "c", "d", "e"],
      overflow: "truncate",
    } as const;
    const error = await failureOf(collect(engine, asked));
    expect(error.details).toMatchObject({ reason: "parameter_unsupported" });
    expect(error.fieldsInvalid).toEqual(["stop", "logprobs", "context_overflow"]);
    expect(stub.received).toEqual([]);
  });

  it("reads log-probabilities of both APIs", async () => {
    const chat = (piece: string): unknown => ({
      content: [{ token: piece, logprob: -0.5, top_logprobs: [{ token: piece, logprob: -0.5 }] }],
    });
    const text = (piece: string): unknown => ({
      tokens: [piece],
      token_logprobs: [-0.25],
      top_logprobs: [{ [piece]: -0.25, other: -2, third: -1 }],
    });
    await using stub = await serve(({ path }) => ({
      logprobs: path.endsWith("chat/completions") ? chat : text,
    }));
    await using engine = open(stub);
    const asked = { parameters: { logprobs: 2 } };
    const fromText = await collect(engine, asked);
    expect(fromText.result.logprobs?.[0]).toEqual({
      token_id: null,
      text: "Hel",
      logprob: -0.25,
      top: [
        { token_id: null, text: "Hel", logprob: -0.25 },
        { token_id: null, text: "third", logprob: -1 },
      ],
    });
    const fromChat = await collect(engine, { ...asked, chat: "Hi" });
    expect(fromChat.result.logprobs).toHaveLength(2);
    expect(stub.of("/v1/chat/completions")[0]?.body).toMatchObject({
      logprobs: true,
      top_logprobs: 2,
    });
  });

  it("asks for whole answers where streams report no usage", async () => {
    await using stub = await serve(({ body }) => (body.stream ? { usage: null } : {}));
    await using streaming = open(stub);
    const error = await failureOf(collect(streaming));
    expect(error.message).toContain("set streaming to false");
    await using engine = open(stub, { streaming: false });
    expect((await collect(engine)).result.usage.completion_tokens).toBe(2);
  });

  it("keeps its connections for calls that follow each other", async () => {
    await using stub = await serve();
    await using engine = open(stub);
    for (let call = 0; call < 10; call += 1) await collect(engine);
    // One may still be read to its end when the next call begins.
    expect(await stub.connections()).toBeLessThanOrEqual(2);
  });

  it("connects once for a hundred first calls", async () => {
    await using stub = await serve();
    await using engine = open(stub);
    await Promise.all(Array.from({ length: 100 }, () => collect(engine)));
    expect(stub.of("/v1/models")).toHaveLength(1);
    expect(stub.of("/v1/completions")).toHaveLength(100);
  });

  it("mixes no streams up", async () => {
    await using stub = await serve(({ body }) => ({ pieces: Array.from(String(body.prompt)) }));
    await using engine = open(stub);
    const prompts = Array.from({ length: 32 }, (_, at) => `call ${at} says ${at * at}`);
    const texts = await Promise.all(
      prompts.map(async (prompt) => (await collect(engine, { prompt })).result.text),
    );
    expect(texts).toEqual(prompts);
  });

  it("sends its key, and names the refusal of one", async () => {
    await using stub = await StubServer.start({
      "GET /v1/models": ({ headers }, response) => {
        const isKnown = headers.authorization === "Bearer right";
        if (isKnown) json(response, { data: [{ id: "tiny" }] });
        else json(response, { error: { message: "Incorrect API key" } }, 401);
      },
      ...completions(() => SCRIPT),
    });
    const config = { server: "generic", base_url: stub.url };
    await using right = openEngine(config, { apiKey: "right" });
    expect((await collect(right)).result.text).toBe("Hello");
    await using wrong = openEngine(config, { apiKey: "wrong" });
    const error = await failureOf(collect(wrong));
    expect(error.code).toBe("SECRET_INVALID");
    expect(error.message).not.toContain("wrong");
  });

  it("needs a model's name where the server lists several", async () => {
    await using stub = await StubServer.start({
      "GET /v1/models": models({ id: "one" }, { id: "two" }),
      ...completions(() => SCRIPT),
    });
    await using unnamed = open(stub);
    const error = await failureOf(collect(unnamed));
    expect(error.fieldsInvalid).toEqual(["model"]);
    expect(error.message).toContain("one, two");
    await using named = open(stub, { model: "two" });
    expect((await collect(named)).result.evidence.model).toBe("two");
    await using missing = open(stub, { model: "three" });
    expect(await reasonOf(collect(missing))).toBe("CAPABILITY_INPUT model_missing");
  });

  it("may have no list of models where one is named", async () => {
    await using stub = await StubServer.start(completions(() => SCRIPT));
    await using named = open(stub, { model: "tiny" });
    expect((await collect(named)).result.evidence.model).toBe("tiny");
    await using unnamed = open(stub);
    expect(await reasonOf(collect(unnamed))).toBe("CAPABILITY_INPUT model_missing");
  });

  it("embeds, and normalizes itself", async () => {
    await using stub = await StubServer.start({
      "GET /v1/models": models({ id: "tiny" }),
      "POST /v1/embeddings": (_, response) => {
        const data = [
          { index: 1, embedding: [0, 2] },
          { index: 0, embedding: [3, 4] },
        ];
        json(response, { data, usage: { prompt_tokens: 7 } });
      },
    });
    await using engine = open(stub);
    const call = { signal: NEVER };
    expect(await engine.embed?.(["a", "b"], { normalize: true }, call)).toEqual({
      embeddings: [
        [0.6, 0.8],
        [0, 1],
      ],
      dimensions: 2,
      usage: { prompt_tokens: 7 },
      model_sha256: null,
    });
    const raw = await failureOf(
      engine.embed?.(["a"], { normalize: false }, call) as Promise<never>,
    );
    expect(raw.fieldsInvalid).toEqual(["normalize"]);
    const short = engine.embed?.(["a", "b", "c"], { normalize: true }, call) as Promise<never>;
    expect(await reasonOf(short)).toBe("CAPABILITY_ERROR server_error");
  });

  it("says what it has not", async () => {
    await using stub = await serve();
    await using engine = open(stub);
    const call = { signal: NEVER };
    const input = { kind: "prompt", prompt: "x" } as const;
    expect(await reasonOf(engine.countTokens(input, call))).toBe(
      "METHOD_NOT_SUPPORTED method_unsupported",
    );
    const score = engine.score?.({ prompt: "x", top: 0, adapters: [] }, call) as Promise<never>;
    expect(await reasonOf(score)).toBe("METHOD_NOT_SUPPORTED method_unsupported");
    expect(await reasonOf(engine.release("sleep"))).toBe("METHOD_NOT_SUPPORTED method_unsupported");
  });
});

describe("a server that lies", () => {
  const cases: [string, Partial<Script>, object, string][] = [
    ["ignores stop", { pieces: ["a STOP b"] }, { stop: ["STOP"] }, "stop"],
    [
      "ignores max_tokens",
      { usage: { prompt_tokens: 1, completion_tokens: 90 } },
      { parameters: { max_tokens: 4 } },
      "max_tokens",
    ],
    ["ignores logprobs", {}, { parameters: { logprobs: 1 } }, "logprobs"],
    [
      "ignores a schema",
      { pieces: ["I think"] },
      { chat: "Hi", parameters: { json_schema: { type: "object" } } },
      "json_schema",
    ],
    [
      "breaks a schema",
      { pieces: ['{"a":"x"}'] },
      {
        chat: "Hi",
        parameters: { json_schema: { type: "object", properties: { a: { type: "number" } } } },
      },
      "json_schema",
    ],
  ];
  it.each(cases)("%s is found out", async (_, script, asked, parameter) => {
    await using stub = await serve(script);
    await using engine = open(stub);
    const error = await failureOf(collect(engine, asked));
    expect(error.details).toEqual({ reason: "server_lied", parameters: [parameter] });
  });

  it("keeps a schema that is honoured", async () => {
    await using stub = await serve({ pieces: ['{"a"', ":1}"] });
    await using engine = open(stub);
    const json_schema = { type: "object", properties: { a: { type: "number" } } };
    expect((await collect(engine, { chat: "Hi", parameters: { json_schema } })).result.text).toBe(
      '{"a":1}',
    );
    // OpenAI has schemas for conversations only, and servers skip one for a prompt in silence.
    const error = await failureOf(collect(engine, { parameters: { json_schema } }));
    expect(error.fieldsInvalid).toEqual(["json_schema"]);
  });
});

describe("a server that fails", () => {
  const answers: [string, Route, string][] = [
    [
      "a context that is too long",
      (_, response) => {
        const message = "This model's maximum context length is 64 tokens.";
        json(response, { error: { message, type: "BadRequestError", code: 400 } }, 400);
      },
      "CAPABILITY_INPUT context_overflow",
    ],
    [
      "an input it refuses",
      (_, response) => json(response, { detail: [{ msg: "bad field" }] }, 422),
      "CAPABILITY_INPUT input_refused",
    ],
    [
      "too many requests",
      (_, response) => json(response, { error: "busy" }, 429),
      "CAPABILITY_TRANSIENT server_busy",
    ],
    [
      "its GPU memory",
      (_, response) => json(response, { error: { message: "CUDA out of memory." } }, 500),
      "CAPABILITY_RESOURCE memory",
    ],
    [
      "a fault of its own",
      (_, response) => void response.writeHead(500).end("<html>oops</html>"),
      "CAPABILITY_ERROR server_error",
    ],
    [
      "HTML where JSON should be",
      (_, response) => void response.end("data: <html>\n\n"),
      "CAPABILITY_ERROR server_error",
    ],
    [
      "an answer of another form",
      (_, response) => events(response)({ choices: "none" }),
      "CAPABILITY_ERROR server_error",
    ],
    [
      "an error in the middle of its stream",
      (request, response) => {
        const send = events(response);
        send(chunk(request, "Hel"));
        send({ error: { message: "EngineCore died", code: 500 } });
        response.end();
      },
      "CAPABILITY_TRANSIENT engine_crashed",
    ],
    [
      "an aborted request",
      (request, response) => {
        events(response)(chunk(request, "Hel", { finish_reason: "abort" }));
        response.end();
      },
      "CAPABILITY_TRANSIENT server_aborted",
    ],
    [
      "a stream that ends in the middle",
      (request, response) => {
        events(response)(chunk(request, "Hel"));
        response.end();
      },
      "CAPABILITY_TRANSIENT engine_crashed",
    ],
    [
      "a connection that breaks",
      (request, response) => {
        events(response)(chunk(request, "Hel"));
        response.socket?.destroy();
      },
      "CAPABILITY_TRANSIENT engine_crashed",
    ],
    [
      "a redirect",
      (_, response) => void response.writeHead(302, { location: "http://127.0.0.1:1/" }).end(),
      "CAPABILITY_ERROR server_error",
    ],
    [
      "a reason to finish that nobody knows",
      (request, response) => {
        events(response)(chunk(request, "Hel", { finish_reason: "tired" }));
        response.end();
      },
      "CAPABILITY_ERROR server_error",
    ],
  ];
  it.each(answers)("with %s is named", async (_, route, expected) => {
    await using stub = await serveRaw(route);
    await using engine = open(stub);
    expect(await reasonOf(collect(engine))).toBe(expected);
    expect(engine.status()).toMatchObject({ active: 0, waiting: 0 });
  });

  it("says when to come again", async () => {
    await using stub = await serveRaw((_, response) => {
      response.setHeader("retry-after", "7");
      json(response, { error: "busy" }, 503);
    });
    await using engine = open(stub);
    expect((await failureOf(collect(engine))).retryAfterSeconds).toBe(7);
  });

  it("by not being there is named, and serves when it is back", async () => {
    const gone = await serve();
    await gone.crash();
    await using engine = open(gone);
    expect(await reasonOf(collect(engine))).toBe("CAPABILITY_TRANSIENT server_down");
  });

  it("is asked again what it is after it broke off", async () => {
    let calls = 0;
    await using stub = await StubServer.start({
      "GET /v1/models": models({ id: "tiny" }),
      "POST /v1/completions": (request, response) => {
        calls += 1;
        if (calls === 1) {
          response.socket?.destroy();
          return;
        }
        const send = events(response);
        send(chunk(request, "back", { finish_reason: "stop" }));
        send({ choices: [], usage: { prompt_tokens: 1, completion_tokens: 1 } });
        response.end();
      },
    });
    await using engine = open(stub);
    expect(await reasonOf(collect(engine))).toBe("CAPABILITY_TRANSIENT engine_crashed");
    expect((await collect(engine)).result.text).toBe("back");
    expect(stub.of("/v1/models")).toHaveLength(2);
  });
});

describe("a server that does not end", () => {
  const hangs: [string, Route][] = [
    ["before its first byte", () => undefined],
    ["before its first event", (_, response) => response.writeHead(200).flushHeaders()],
    ["in the middle", (request, response) => events(response)(chunk(request, "Hel"))],
    [
      "while it drips bytes of a line",
      (_, response) => {
        response.write("data: ");
        drip(response, "x");
      },
    ],
    [
      "while it sends comments",
      (request, response) => {
        events(response)(chunk(request, "Hel"));
        drip(response, ": still here\n\n");
      },
    ],
  ];
  it.each(hangs)("hangs %s: a limit ends it", async (_, route) => {
    await using stub = await serveRaw(route);
    await using engine = open(stub, { first_token_seconds: 0.3, idle_seconds: 0.3 });
    const request = stub.next("/v1/completions");
    expect(await reasonOf(collect(engine))).toBe("CAPABILITY_TIMEOUT server_hangs");
    await (
      await request
    ).left;
    expect(engine.status().active).toBe(0);
  });

  const floods: [string, Route][] = [
    [
      "a line without end",
      (_, response) => {
        response.write("data: ");
        flood(response, "x".repeat(65_536));
      },
    ],
    ["events without end", (request, response) => flood(response, event(request))],
  ];
  it.each(floods)("sends %s: it is cut off", async (_, route) => {
    await using stub = await serveRaw(route);
    await using engine = open(stub, { max_response_mb: 5 });
    const request = stub.next("/v1/completions");
    expect(await reasonOf(collect(engine))).toBe("CAPABILITY_ERROR response_too_large");
    await (
      await request
    ).left;
  });

  it("sends a list of models without end: it is cut off", async () => {
    await using stub = await StubServer.start({
      "GET /v1/models": (_, response) => flood(response, "[".repeat(65_536)),
    });
    await using engine = open(stub, { max_response_mb: 1 });
    expect(await reasonOf(collect(engine))).toBe("CAPABILITY_ERROR response_too_large");
  });
});

describe("an abort", () => {
  it("closes the connection and throws its own reason", async () => {
    await using stub = await serveRaw((request, response) =>
      events(response)(chunk(request, "Hel")),
    );
    await using engine = open(stub);
    const request = stub.next("/v1/completions");
    const controller = new AbortController();
    const ended = collect(engine, {}, controller.signal);
    const { left } = await request;
    const reason = new Error("nobody waits");
    controller.abort(reason);
    await expect(ended).rejects.toBe(reason);
    await left;
    expect(engine.status()).toMatchObject({ active: 0, waiting: 0 });
  });

  it("by leaving the loop closes the connection too", async () => {
    await using stub = await serveRaw((request, response) =>
      events(response)(chunk(request, "Hel")),
    );
    await using engine = open(stub);
    const request = stub.next("/v1/completions");
    const asked = { input: { kind: "prompt", prompt: "x" } as const, parameters: {} };
    const rest = { stop: [], adapters: [], overflow: "refuse" } as const;
    for await (const delta of engine.stream({ ...asked, ...rest }, { signal: NEVER })) {
      expect(delta.text).toBe("Hel");
      break;
    }
    await (
      await request
    ).left;
    expect(engine.status().active).toBe(0);
  });

  it("while a call waits for a slot leaves the others alone", async () => {
    await using stub = await serveRaw((request, response) =>
      events(response)(chunk(request, "Hel")),
    );
    await using engine = open(stub, { max_concurrent: 1 });
    const first = new AbortController();
    const second = new AbortController();
    const request = stub.next("/v1/completions");
    const running = collect(engine, {}, first.signal);
    const { left } = await request;
    const waiting = collect(engine, {}, second.signal);
    expect(engine.status()).toMatchObject({ active: 1, waiting: 1, slots: 1 });
    second.abort(new Error("second"));
    await expect(waiting).rejects.toThrow("second");
    expect(engine.status()).toMatchObject({ active: 1, waiting: 0 });
    first.abort(new Error("first"));
    await expect(running).rejects.toThrow("first");
    await left;
  });

  it("by closing the engine ends running calls", async () => {
    await using stub = await serveRaw((request, response) =>
      events(response)(chunk(request, "Hel")),
    );
    const engine = open(stub);
    const request = stub.next("/v1/completions");
    const ended = reasonOf(collect(engine));
    await request;
    await engine.close();
    expect(await ended).toBe("CAPABILITY_TRANSIENT engine_crashed");
  });
});

function event(request: Received): string {
  return `data: ${JSON.stringify(chunk(request, "x".repeat(1000)))}\n\n`.repeat(20);
}

/** Writes for ever, as fast as it is read. */
function flood(response: Parameters<Route>[1], text: string): void {
  response.on("error", () => undefined);
  const more = (): void => {
    while (!response.destroyed && response.write(text));
    if (!response.destroyed) response.once("drain", more);
  };
  more();
}

/** Writes a little for ever, slowly. */
function drip(response: Parameters<Route>[1], text: string): void {
  const timer = setInterval(() => response.write(text), 20);
  response.once("close", () => {
    clearInterval(timer);
  });
}
