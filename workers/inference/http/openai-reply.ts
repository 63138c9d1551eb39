import type { Delta, FinishReason, Generation, Logprob } from "../task/schemas.ts";

/** Which of the two generating routes is answered. */
export type Route = "chat" | "completion";

export interface ReplyHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
}

const FINISH: Readonly<Record<FinishReason, "stop" | "length">> = {
  stop: "stop",
  stop_sequence: "stop",
  length: "length",
};

const OBJECTS = {
  chat: { whole: "chat.completion", chunk: "chat.completion.chunk" },
  completion: { whole: "text_completion", chunk: "text_completion" },
} as const;

export function wholeReply(route: Route, head: ReplyHead, result: Generation): object {
  const { text, finish_reason: reason, logprobs } = result;
  const content =
    route === "chat" ? { message: { role: "assistant", content: text, refusal: null } } : { text };
  const choice = { index: 0, ...content, logprobs: logprobsOf(route, logprobs) };
  return {
    ...head,
    object: OBJECTS[route].whole,
    choices: [{ ...choice, finish_reason: FINISH[reason] }],
    usage: usageOf(result),
    // Not of the API: what was applied, and the evidence for it.
    cjm: evidenceOf(result),
  };
}

/** The chunk that says who speaks; only conversations have it. */
export function firstChunk(route: Route, head: ReplyHead): object | undefined {
  if (route === "completion") return undefined;
  return chunk(route, head, { delta: { role: "assistant", content: "" }, finish_reason: null });
}

export function deltaChunk(route: Route, head: ReplyHead, { text, logprobs }: Delta): object {
  const content = route === "chat" ? { delta: { content: text } } : { text };
  const more = { logprobs: logprobsOf(route, logprobs ?? null), finish_reason: null };
  return chunk(route, head, { ...content, ...more });
}

export function lastChunks(
  route: Route,
  head: ReplyHead,
  result: Generation,
  withUsage: boolean,
): object[] {
  const content = route === "chat" ? { delta: {} } : { text: "" };
  const reason = FINISH[result.finish_reason];
  const last = {
    ...chunk(route, head, { ...content, finish_reason: reason }),
    cjm: evidenceOf(result),
  };
  if (!withUsage) return [last];
  const { object } = { object: OBJECTS[route].chunk };
  return [last, { ...head, object, choices: [], usage: usageOf(result) }];
}

function chunk(route: Route, head: ReplyHead, choice: object): object {
  return { ...head, object: OBJECTS[route].chunk, choices: [{ index: 0, ...choice }] };
}

function usageOf({ usage }: Generation): object {
  return {
    prompt_tokens: usage.prompt_tokens,
    completion_tokens: usage.completion_tokens,
    total_tokens: usage.total_tokens,
    prompt_tokens_details: { cached_tokens: usage.cached_prompt_tokens },
  };
}

function evidenceOf({ adapters, evidence, seed, stop_sequence, timings }: Generation): object {
  return { adapters, evidence, seed, stop_sequence, timings };
}

function logprobsOf(route: Route, logprobs: readonly Logprob[] | null): object | null {
  if (logprobs === null) return null;
  return route === "chat" ? { content: logprobs.map(chatLogprob), refusal: null } : flat(logprobs);
}

function chatLogprob({ text, logprob, top }: Logprob): object {
  return { ...entry({ text, logprob }), top_logprobs: top.map(entry) };
}

function entry({ text, logprob }: { readonly text: string; readonly logprob: number }): object {
  return { token: text, logprob, bytes: [...Buffer.from(text, "utf8")] };
}

function flat(logprobs: readonly Logprob[]): object {
  return {
    tokens: logprobs.map(({ text }) => text),
    token_logprobs: logprobs.map(({ logprob }) => logprob),
    top_logprobs: logprobs.map(({ top }) =>
      Object.fromEntries(top.map(({ text, logprob }) => [text, logprob])),
    ),
    text_offset: logprobs.map((_, i) =>
      logprobs.slice(0, i).reduce((length, { text }) => length + text.length, 0),
    ),
  };
}
