import { z } from "cjm-substrate/worker";
import { failure, quote, type Reason } from "../failure.ts";

/** What a server said when it refused: OpenAI's `{error: {…}}`, Ollama's, FastAPI's, or plain text. */
const refusalSchema = z.union([
  z.object({
    error: z.object({
      message: z.string(),
      type: z.string().nullish(),
      param: z.string().nullish(),
      code: z.union([z.string(), z.number()]).nullish(),
    }),
  }),
  z.object({ error: z.string() }),
  z.object({ message: z.string(), type: z.string().nullish(), param: z.string().nullish() }),
  z.object({ detail: z.unknown() }),
]);

export interface Refusal {
  readonly status: number;
  readonly message: string;
  readonly type: string;
  readonly param: string | undefined;
  /** As the header `retry-after` has it. */
  readonly retryAfterSeconds?: number;
}

/** Reads an error body; never throws. */
export function readRefusal(status: number, body: string): Refusal {
  const parsed = refusalSchema.safeParse(parseJson(body));
  if (!parsed.success) return { status, message: quote(body), type: "", param: undefined };
  const said = parsed.data;
  if ("detail" in said) {
    const message = typeof said.detail === "string" ? said.detail : JSON.stringify(said.detail);
    return { status, message: quote(message), type: "", param: undefined };
  }
  if ("error" in said && typeof said.error === "string") {
    return { status, message: quote(said.error), type: "", param: undefined };
  }
  const inner = "error" in said ? said.error : said;
  if (typeof inner === "string")
    return { status, message: quote(inner), type: "", param: undefined };
  return {
    status,
    message: quote(inner.message),
    type: [inner.type, "code" in inner ? inner.code : ""].filter(Boolean).join(" "),
    param: inner.param ?? undefined,
  };
}

/** Words that servers use; the first that matches names the reason. */
const WORDS: readonly (readonly [RegExp, Reason])[] = [
  [/out of memory|cudamalloc failed|failed to allocate|more system memory/iu, "memory"],
  [
    /exceed_context_size|context_length_exceeded|maximum context length|exceeds? (?:the )?(?:available )?context|longer than the maximum model length|prompt too long/iu,
    "context_overflow",
  ],
  [/grammar|structured[ _]output|json[ _]schema|guided decoding/iu, "grammar_invalid"],
  [/chat[ _]template/iu, "chat_template_missing"],
  [/enginedead|engine ?(?:core|process|loop).*(?:died|dead|issue)/iu, "engine_crashed"],
];

/** The typed error for a refusal. 500 with known words is told by its words, else by its status. */
export function refusalError(refusal: Refusal, what: string): Error {
  const { status, message, type, param } = refusal;
  const words = `${type} ${message}`;
  const known = WORDS.find(([pattern]) => pattern.test(words))?.[1];
  const reason = known ?? reasonOfStatus(status);
  const fields = param === undefined ? FIELDS[reason] : [param];
  return failure(reason, `${what}: the server answered ${status}: ${message}`, {
    details: { status },
    ...(fields === undefined ? {} : { fields }),
    ...(refusal.retryAfterSeconds === undefined
      ? {}
      : { retryAfterSeconds: refusal.retryAfterSeconds }),
  });
}

const FIELDS: Readonly<Partial<Record<Reason, readonly string[]>>> = {
  context_overflow: ["max_tokens"],
  grammar_invalid: ["grammar", "json_schema"],
  chat_template_missing: ["messages"],
  model_missing: ["model"],
};

function reasonOfStatus(status: number): Reason {
  if (status === 401 || status === 403) return "key_refused";
  if (status === 404) return "model_missing";
  if (status === 405 || status === 501) return "method_unsupported";
  if ([408, 425, 429, 502, 503, 504].includes(status)) return "server_busy";
  return status >= 400 && status < 500 ? "input_refused" : "server_error";
}

export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
