import type { ServerResponse } from "node:http";
import { events, json, type Received, type Route } from "./stub-server.ts";

export interface Script {
  /** Pieces of the text. */
  readonly pieces: readonly string[];
  readonly finish: string;
  readonly stopReason?: string | null;
  /** Added to the first chunk's choice, or to each. */
  readonly logprobs?: (piece: string) => unknown;
  readonly usage?: object | null;
  readonly model?: string;
}

export const SCRIPT: Script = { pieces: ["Hel", "lo"], finish: "stop" };

/** `/completions` and `/chat/completions`, streamed or not, as OpenAI documents them. */
export function completions(script: (request: Received) => Script): Record<string, Route> {
  const route: Route = (request, response) => {
    const told = script(request);
    if (request.body.stream === true) stream(request, response, told);
    else whole(request, response, told);
  };
  return { "POST /v1/completions": route, "POST /v1/chat/completions": route };
}

export function models(
  ...list: { id: string; max_model_len?: number; root?: string; parent?: string }[]
): Route {
  return (_, response) => {
    json(response, { object: "list", data: list.map((model) => ({ object: "model", ...model })) });
  };
}

export function usageOf(script: Script): object | null {
  if (script.usage !== undefined) return script.usage;
  const completion = script.pieces.length;
  return { prompt_tokens: 3, completion_tokens: completion, total_tokens: 3 + completion };
}

/** One chunk of a stream: a piece of text, or the end. */
export function chunk(request: Received, piece: string, extra: object = {}): object {
  const isChat = request.path.endsWith("/chat/completions");
  const said = isChat ? { delta: { content: piece } } : { text: piece };
  const choice = { index: 0, finish_reason: null, ...said, ...extra };
  return { id: "x", model: request.body.model, choices: [choice] };
}

function stream(request: Received, response: ServerResponse, script: Script): void {
  const send = events(response);
  for (const piece of script.pieces) {
    const logprobs = script.logprobs?.(piece);
    send({
      ...chunk(request, piece, logprobs === undefined ? {} : { logprobs }),
      ...named(script),
    });
  }
  const end = { finish_reason: script.finish, stop_reason: script.stopReason ?? null };
  send({ ...chunk(request, "", end), ...named(script) });
  const usage = usageOf(script);
  if (request.body.stream_options?.include_usage === true && usage !== null) {
    send({ id: "x", model: request.body.model, choices: [], usage, ...named(script) });
  }
  send("[DONE]");
  response.end();
}

function whole(request: Received, response: ServerResponse, script: Script): void {
  const text = script.pieces.join("");
  const isChat = request.path.endsWith("/chat/completions");
  const said = isChat ? { message: { role: "assistant", content: text } } : { text };
  const logprobs = script.logprobs?.(text);
  const choice = {
    index: 0,
    ...said,
    finish_reason: script.finish,
    stop_reason: script.stopReason ?? null,
    ...(logprobs === undefined ? {} : { logprobs }),
  };
  const model = script.model ?? request.body.model;
  json(response, { id: "x", model, choices: [choice], usage: usageOf(script) });
}

function named({ model }: Script): object {
  return model === undefined ? {} : { model };
}
