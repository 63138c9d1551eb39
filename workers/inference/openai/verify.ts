import { z } from "cjm-substrate/worker";
import type { TextRequest } from "../engine.ts";
import { NEUTRAL } from "../task/parameters.ts";
import type { Logprob } from "../task/schemas.ts";
import type { Outcome } from "./dialects/dialect.ts";
import { failure } from "./failure.ts";
import { parseJson } from "./http/refusal.ts";

export interface Answer {
  readonly text: string;
  readonly logprobs: readonly Logprob[] | undefined;
  readonly outcome: Outcome;
}

/** A server may finish a character, and some count the end-of-text token beside the limit. */
const SPARE_TOKENS = 4;

/**
 * Checks on the answer itself whether what was asked for was honoured, as far as an answer shows it:
 * many servers skip parameters that they do not know.
 *
 * @throws {CjmError} `server_lied` naming each parameter.
 */
export function verifyHonoured(request: TextRequest, answer: Answer): void {
  const { parameters, stop } = request;
  const { text, outcome } = answer;
  const broken: string[] = [];
  if (stop.some((end) => text.includes(end))) broken.push("stop");
  const limit = (parameters.max_tokens ?? NEUTRAL.max_tokens) + SPARE_TOKENS;
  if (outcome.usage.completion_tokens > limit) broken.push("max_tokens");
  if (parameters.logprobs !== undefined && lacksLogprobs(answer)) broken.push("logprobs");
  const schema = parameters.json_schema;
  if (schema !== undefined && !satisfies(text, outcome.finish, schema)) broken.push("json_schema");
  if (broken.length === 0) return;
  const message = `the server answered 200 and did not honour ${broken.join(", ")}`;
  throw failure("server_lied", message, { details: { parameters: broken } });
}

function lacksLogprobs({ text, logprobs }: Answer): boolean {
  return text !== "" && (logprobs === undefined || logprobs.length === 0);
}

/** A text that was cut off can only be seen to begin as JSON does. */
function satisfies(
  text: string,
  finish: Outcome["finish"],
  schema: Readonly<Record<string, unknown>>,
): boolean {
  if (finish === "length") return /^\s*(?:$|[[{"\-0-9tfn])/u.test(text);
  const value = parseJson(text);
  if (value === undefined) return false;
  return compile(schema)?.safeParse(value).success ?? true;
}

/** Undefined for a schema with keywords that cannot be checked here. */
function compile(schema: Readonly<Record<string, unknown>>): z.ZodType | undefined {
  try {
    return z.fromJSONSchema(schema);
  } catch {
    return undefined;
  }
}
