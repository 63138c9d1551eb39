import type { TextInput } from "../engine.ts";
import { parametersSchema } from "../task/parameters.ts";
import type { Asked } from "../task/request.ts";
import { EndpointError } from "./http-fault.ts";
import type { ChatRequest, CompletionRequest } from "./openai-schemas.ts";

/** What of a request reaches the engine. */
export interface Translated {
  readonly input: TextInput;
  readonly asked: Asked;
}

/** Any JSON value, for `response_format: json_object`. */
const JSON_GRAMMAR = String.raw`root ::= object
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (pair ("," ws pair)*)? "}"
pair ::= string ws ":" ws value ws
array ::= "[" ws (value ws ("," ws value ws)*)? "]"
string ::= "\"" ([^"\\\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,15}) ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,3})?
ws ::= [ \n]{0,2}
`;

export function fromChat(request: ChatRequest, adapterId: string | undefined): Translated {
  const asked = asAsked(request, adapterId, {
    max_tokens: request.max_completion_tokens ?? request.max_tokens ?? undefined,
    logprobs: chatLogprobs(request),
    ...constraint(request),
  });
  return { input: { kind: "chat", messages: request.messages }, asked };
}

export function fromCompletion(
  request: CompletionRequest,
  adapterId: string | undefined,
): Translated {
  const { prompt } = request;
  const asked = asAsked(request, adapterId, {
    max_tokens: request.max_tokens ?? undefined,
    logprobs: request.logprobs ?? undefined,
    grammar: request.grammar,
  });
  return { input: { kind: "prompt", prompt }, asked };
}

function chatLogprobs({ logprobs, top_logprobs: top }: ChatRequest): number | undefined {
  if (logprobs === true) return top ?? 0;
  if (top === undefined || top === null) return undefined;
  throw new EndpointError(
    400,
    "invalid_value",
    "top_logprobs needs logprobs: true",
    "top_logprobs",
  );
}

function constraint(request: ChatRequest): Record<string, unknown> {
  const { response_format: format, grammar } = request;
  if (format === undefined || format === null || format.type === "text") return { grammar };
  if (grammar !== undefined) {
    throw new EndpointError(400, "invalid_value", "grammar and response_format", "grammar");
  }
  if (format.type === "json_object") return { grammar: JSON_GRAMMAR };
  return { json_schema: format.json_schema.schema };
}

function asAsked(
  request: ChatRequest | CompletionRequest,
  adapterId: string | undefined,
  more: Readonly<Record<string, unknown>>,
): Asked {
  const { temperature, top_p, top_k, min_p, repetition_penalty, seed, stop } = request;
  const { presence_penalty, frequency_penalty, adapters } = request;
  const named = adapterId === undefined ? [] : [{ id: adapterId }];
  const given = {
    temperature,
    top_p,
    top_k,
    min_p,
    repetition_penalty,
    presence_penalty,
    frequency_penalty,
    stop,
    seed,
    adapters: [...named, ...(adapters ?? [])],
    ...more,
  };
  const present = Object.entries(given).filter(
    ([, value]) => value !== undefined && value !== null,
  );
  const parsed = parametersSchema.parse(Object.fromEntries(present));
  return { ...parsed, context_overflow: "refuse" };
}
