import { events, json, StubServer, type Body, type Route } from "./stub-server.ts";

export interface LlamaLies {
  /** Settings that the last event says were applied, instead of those that were sent. */
  readonly applied?: object;
  /** How the text ended. */
  readonly end?: object;
  readonly pieces?: readonly string[];
}

export const CONTEXT = 64;

/** A stub of llama-server's documented API; a token is a character, and 1 begins every text. */
export async function startLlama(
  adapters: readonly string[] = [],
  lies: LlamaLies = {},
  extra: Record<string, Route> = {},
): Promise<StubServer> {
  return StubServer.start({
    "GET /props": (_, response) =>
      json(response, {
        default_generation_settings: { n_ctx: CONTEXT },
        total_slots: 2,
        model_path: "/models/tiny.gguf",
        model_alias: "tiny",
        model_ftype: "F32",
        chat_template: "x",
        build_info: "b1234",
      }),
    "GET /v1/models": (_, response) =>
      json(response, { data: [{ id: "tiny", meta: { n_ctx_train: 512, n_params: 9, size: 36 } }] }),
    "GET /lora-adapters": (_, response) =>
      json(
        response,
        adapters.map((path, id) => ({ id, path, scale: 1 })),
      ),
    "POST /apply-template": ({ body }, response) =>
      json(response, { prompt: `<user>${body.messages?.[0]?.content}` }),
    "POST /tokenize": ({ body }, response) => json(response, { tokens: tokensOf(body.content) }),
    "POST /completion": ({ body }, response) => answer(body, response, lies),
    ...extra,
  });
}

/** The tokens of an ASCII text. */
export function tokensOf(text: string): number[] {
  return [1, ...Array.from(text, (letter) => letter.charCodeAt(0))];
}

const PROBABILITIES = { a: -0.25, b: -1.5 };

function answer(body: Body, response: Parameters<Route>[1], lies: LlamaLies): void {
  const scale = (body.lora ?? []).reduce((sum: number, lora) => sum + lora.scale, 0);
  const entry = (token: string, id: number): object => ({
    id,
    token,
    bytes: [id],
    logprob: PROBABILITIES.a - scale,
    top_logprobs: [
      { id: 98, token: "b", logprob: PROBABILITIES.b },
      { id: 97, token: "a", logprob: PROBABILITIES.a - scale },
    ],
  });
  const probabilities = (token: string, id: number): object =>
    body.n_probs > 0 ? { completion_probabilities: [entry(token, id)] } : {};
  if (body.stream !== true) {
    return json(response, { content: "a", stop: true, ...probabilities("a", 97) });
  }
  const send = events(response);
  for (const piece of lies.pieces ?? ["Hel", "lo"]) {
    send({ content: piece, stop: false, ...probabilities(piece, piece.charCodeAt(0)) });
  }
  // The end-of-text token has an event of its own.
  send({ content: "", stop: false, ...probabilities("", 2) });
  const { grammar, json_schema: schema, prompt } = body;
  send({
    content: "",
    stop: true,
    model: "tiny",
    tokens_predicted: 3,
    tokens_evaluated: prompt.length,
    stop_type: "eos",
    stopping_word: "",
    truncated: false,
    timings: { cache_n: 2 },
    generation_settings: {
      ...body,
      grammar: grammar ?? (schema === undefined ? "" : "root ::= x"),
      ...lies.applied,
    },
    ...lies.end,
  });
  response.end();
}
