import { z } from "cjm-substrate/worker";
import type { EngineCall } from "../../engine.ts";
import type { FinishReason, Logprob, Usage } from "../../task/schemas.ts";
import { failure, quote } from "../failure.ts";
import { malformed, type LineStream } from "../http/client.ts";
import { parseJson, readRefusal, refusalError } from "../http/refusal.ts";
import { readServerEvents } from "../http/sse.ts";
import type { Link, Piece } from "./dialect.ts";
import {
  completionSchema,
  logprobsOf,
  textOf,
  type WireChoice,
  type WireCompletion,
  type WireUsage,
} from "./openai-wire.ts";

/** One request of the OpenAI API. */
export interface CompletionRequest {
  readonly path: "/chat/completions" | "/completions";
  readonly body: Readonly<Record<string, unknown>>;
  /** Alternatives per token that the caller asked for; undefined for no log-probabilities. */
  readonly top: number | undefined;
}

/** What the end of an answer said. */
export interface Ending {
  readonly finish: FinishReason;
  readonly stopSequence: string | null;
  readonly usage: Usage;
  readonly model: string;
}

/** Runs a request of the OpenAI API: its text piece by piece, then what its end said. */
export async function* complete(
  link: Link,
  request: CompletionRequest,
  call: EngineCall,
): AsyncGenerator<Piece, Ending, void> {
  const answer = new Answer(request.top);
  if (link.config.streaming) {
    for await (const chunk of streamed(link, request, call)) yield* answer.take(chunk);
    return answer.end("stream", "set streaming to false if this server reports it only so");
  }
  const { body, path } = request;
  const url = `${link.address.api}${path}`;
  const spec = { method: "POST", url, body, signal: call.signal, what: path } as const;
  yield* answer.take(await link.http.json(spec, completionSchema));
  return answer.end("answer", "this server cannot be used");
}

/** Collects what the chunks of one answer say besides text. */
class Answer {
  readonly #top: number | undefined;
  #finish: WireChoice | undefined;
  #usage: WireUsage | undefined;
  #model = "";

  constructor(top: number | undefined) {
    this.#top = top;
  }

  *take(chunk: WireCompletion): Generator<Piece, void, void> {
    this.#model = chunk.model ?? this.#model;
    this.#usage = chunk.usage ?? this.#usage;
    const choice = chunk.choices.find(({ index }) => index === 0);
    if (choice === undefined) return;
    if (typeof choice.finish_reason === "string") this.#finish = choice;
    const text = textOf(choice);
    const logprobs = this.#top === undefined ? undefined : logprobsOf(choice, this.#top);
    if (text === "" && (logprobs === undefined || logprobs.length === 0)) return;
    yield piece(text, logprobs);
  }

  end(what: string, advice: string): Ending {
    if (this.#finish === undefined) {
      throw failure("engine_crashed", `The server's ${what} ended before its answer did`);
    }
    const finish = finishOf(this.#finish);
    if (this.#usage === undefined) {
      throw failure("server_error", `The server's ${what} reports no token usage: ${advice}`);
    }
    return { ...finish, usage: usageOf(this.#usage), model: this.#model };
  }
}

function piece(text: string, logprobs: readonly Logprob[] | undefined): Piece {
  return logprobs === undefined ? { text } : { text, logprobs };
}

async function* streamed(
  link: Link,
  { path, body }: CompletionRequest,
  call: EngineCall,
): AsyncGenerator<WireCompletion, void, void> {
  const spec = {
    method: "POST",
    url: `${link.address.api}${path}`,
    body: { ...body, stream: true, stream_options: { include_usage: true } },
    signal: call.signal,
    what: path,
  } as const;
  yield* link.http.lines(spec, (stream) => readChunks(stream, path));
}

const errorChunkSchema = z.union([
  z.object({ error: z.union([z.string(), z.looseObject({ message: z.string() })]) }),
  z.object({ object: z.literal("error"), message: z.string() }),
]);

/** Chunks of an event stream up to `[DONE]`; an error among them is thrown. */
export async function* readChunks(
  { lines, alive }: LineStream,
  what: string,
): AsyncGenerator<WireCompletion, void, void> {
  for await (const { type, data } of readServerEvents(lines)) {
    alive();
    if (data === "[DONE]") return;
    const value = parseJson(data);
    if (type === "error" || errorChunkSchema.safeParse(value).success)
      throw streamError(data, what);
    const parsed = completionSchema.safeParse(value);
    if (!parsed.success) throw malformed(what, quote(data));
    yield parsed.data;
  }
}

const statusSchema = z.object({ error: z.object({ code: z.int() }) });

/** An error in the middle of a stream: the status line had already said 200. */
export function streamError(data: string, what: string): Error {
  const status = statusSchema.safeParse(parseJson(data));
  return refusalError(readRefusal(status.success ? status.data.error.code : 500, data), what);
}

/**
 * OpenAI has `stop` for both ends of a text; vLLM adds `stop_reason`: the stop text, or null or a
 * token id where the model ended. Where a server does not tell, `stop` stays `stop`.
 */
function finishOf(choice: WireChoice): Pick<Ending, "finish" | "stopSequence"> {
  const { finish_reason: finish, stop_reason: reason } = choice;
  if (finish === "length") return { finish: "length", stopSequence: null };
  if (finish === "abort" || finish === "cancelled") {
    throw failure("server_aborted", "The server aborted the request before its end");
  }
  if (finish !== "stop" && finish !== "eos" && finish !== "eos_token") {
    throw failure("server_error", `The server ended its text for an unknown reason: ${finish}`);
  }
  if (typeof reason === "string") return { finish: "stop_sequence", stopSequence: reason };
  return { finish: "stop", stopSequence: null };
}

export function usageOf(usage: WireUsage): Usage {
  return {
    prompt_tokens: usage.prompt_tokens,
    cached_prompt_tokens: usage.prompt_tokens_details?.cached_tokens ?? 0,
    completion_tokens: usage.completion_tokens,
    total_tokens: usage.prompt_tokens + usage.completion_tokens,
  };
}
