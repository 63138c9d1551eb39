import { z } from "cjm-substrate/worker";
import type { Logprob, TokenLogprob } from "../../task/schemas.ts";

/** The parts of OpenAI's answers that are read; servers add fields of their own. */
const chatLogprobSchema = z.object({
  token: z.string(),
  logprob: z.number(),
  id: z.int().nullish(),
  top_logprobs: z
    .array(z.object({ token: z.string(), logprob: z.number(), id: z.int().nullish() }))
    .nullish(),
});
const chatLogprobsSchema = z.object({ content: z.array(chatLogprobSchema).nullish() });
const textLogprobsSchema = z.object({
  tokens: z.array(z.string()),
  token_logprobs: z.array(z.number().nullable()),
  top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullish(),
});

const usageSchema = z.object({
  prompt_tokens: z.int(),
  completion_tokens: z.int().default(0),
  prompt_tokens_details: z.object({ cached_tokens: z.int().nullish() }).nullish(),
});
export type WireUsage = z.output<typeof usageSchema>;

const choiceFields = {
  index: z.int().default(0),
  finish_reason: z.string().nullish(),
  stop_reason: z.union([z.string(), z.number()]).nullish(),
  token_ids: z.array(z.int()).nullish(),
} as const;

const spoken = z.object({ content: z.string().nullish() });
const choiceSchema = z.object({
  ...choiceFields,
  delta: spoken.nullish(),
  message: spoken.nullish(),
  text: z.string().nullish(),
  logprobs: z.union([textLogprobsSchema, chatLogprobsSchema, z.null()]).optional(),
});
export type WireChoice = z.output<typeof choiceSchema>;

/** A chunk of a stream, or a whole answer: they differ in `delta`, `message` and `text` only. */
export const completionSchema = z.object({
  model: z.string().nullish(),
  choices: z.array(choiceSchema),
  usage: usageSchema.nullish(),
});
export type WireCompletion = z.output<typeof completionSchema>;

export const modelListSchema = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      root: z.string().nullish(),
      parent: z.string().nullish(),
      max_model_len: z.int().nullish(),
    }),
  ),
});

export const embeddingsSchema = z.object({
  data: z.array(z.object({ index: z.int(), embedding: z.array(z.number()) })),
  usage: z.object({ prompt_tokens: z.int() }).nullish(),
});

/** The text of a choice, in whichever of its three places it is. */
export function textOf(choice: WireChoice): string {
  return choice.delta?.content ?? choice.message?.content ?? choice.text ?? "";
}

/** Log-probabilities of a choice; `top` of them as alternatives; undefined where there are none. */
export function logprobsOf(choice: WireChoice, top: number): readonly Logprob[] | undefined {
  const { logprobs } = choice;
  if (logprobs === null || logprobs === undefined) return undefined;
  if ("tokens" in logprobs) return textLogprobs(logprobs, choice.token_ids, top);
  const ids = choice.token_ids;
  return logprobs.content?.map((entry, at) => ({
    token_id: entry.id ?? ids?.[at] ?? null,
    text: entry.token,
    logprob: entry.logprob,
    top: likeliest(
      (entry.top_logprobs ?? []).map((other) => ({
        token_id: other.id ?? null,
        text: other.token,
        logprob: other.logprob,
      })),
      top,
    ),
  }));
}

function textLogprobs(
  logprobs: z.output<typeof textLogprobsSchema>,
  ids: readonly number[] | null | undefined,
  top: number,
): readonly Logprob[] {
  return logprobs.tokens.map((text, at) => ({
    token_id: ids?.[at] ?? null,
    text,
    logprob: logprobs.token_logprobs[at] ?? -Infinity,
    top: likeliest(
      Object.entries(logprobs.top_logprobs?.[at] ?? {}).map(([text, logprob]) => ({
        token_id: null,
        text,
        logprob,
      })),
      top,
    ),
  }));
}

/** Servers add the chosen token to the alternatives when it is not among them. */
export function likeliest(tokens: readonly TokenLogprob[], top: number): TokenLogprob[] {
  return tokens.toSorted((a, b) => b.logprob - a.logprob).slice(0, top);
}
