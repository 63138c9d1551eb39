import { z } from "cjm-substrate/worker";
import type { Logprob } from "../../task/schemas.ts";
import { likeliest } from "./openai-wire.ts";

/** The parts of llama-server's own API that are read (its README, "API Endpoints"). */
export const propsSchema = z.object({
  default_generation_settings: z.object({ n_ctx: z.int().positive() }),
  total_slots: z.int().positive(),
  model_path: z.string().default(""),
  model_alias: z.string().nullish(),
  model_ftype: z.string().nullish(),
  chat_template: z.string().nullish(),
  build_info: z.string().default("unknown"),
});

export const loraListSchema = z.array(
  z.object({ id: z.int(), path: z.string(), scale: z.number().nullish() }),
);
export const tokensSchema = z.object({ tokens: z.array(z.int()) });
export const templateSchema = z.object({ prompt: z.string() });
export const slotsSchema = z.array(z.object({ id: z.int(), is_processing: z.boolean() }));
export const modelsSchema = z.object({
  data: z.array(
    z.object({
      id: z.string(),
      meta: z
        .object({
          n_ctx_train: z.int().nullish(),
          n_params: z.int().nullish(),
          size: z.int().nullish(),
        })
        .nullish(),
    }),
  ),
});

const alternativeSchema = z.object({ id: z.int(), token: z.string(), logprob: z.number() });
const probabilitySchema = alternativeSchema.extend({ top_logprobs: z.array(alternativeSchema) });

/** What the server says it applied; a name it does not know is not among them. */
export const settingsSchema = z.object({
  seed: z.int(),
  temperature: z.number(),
  top_k: z.int(),
  top_p: z.number(),
  min_p: z.number(),
  repeat_penalty: z.number(),
  repeat_last_n: z.int(),
  presence_penalty: z.number(),
  frequency_penalty: z.number(),
  n_predict: z.int(),
  stop: z.array(z.string()),
  grammar: z.string(),
  samplers: z.array(z.string()),
  lora: z.array(z.object({ id: z.int(), scale: z.number() })),
});
export type Settings = z.output<typeof settingsSchema>;

export const chunkSchema = z.object({
  content: z.string(),
  stop: z.boolean(),
  completion_probabilities: z.array(probabilitySchema).nullish(),
});
export type LlamaChunk = z.output<typeof chunkSchema>;

export const lastChunkSchema = chunkSchema.extend({
  model: z.string(),
  tokens_predicted: z.int(),
  tokens_evaluated: z.int(),
  stop_type: z.enum(["eos", "limit", "word", "none"]),
  stopping_word: z.string(),
  truncated: z.boolean(),
  timings: z.object({ cache_n: z.int().default(0) }),
  generation_settings: settingsSchema,
});
export type LlamaLast = z.output<typeof lastChunkSchema>;

export function llamaLogprobs(chunk: LlamaChunk, top: number): readonly Logprob[] {
  return (chunk.completion_probabilities ?? []).map((entry) => ({
    token_id: entry.id,
    text: entry.token,
    logprob: entry.logprob,
    top: likeliest(
      entry.top_logprobs.map(({ id, token, logprob }) => ({ token_id: id, text: token, logprob })),
      top,
    ),
  }));
}
