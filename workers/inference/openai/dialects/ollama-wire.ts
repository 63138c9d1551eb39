import { z } from "cjm-substrate/worker";
import type { Logprob } from "../../task/schemas.ts";
import { likeliest } from "./openai-wire.ts";

/** The parts of Ollama's own API that are read (its docs/api.md). Durations are nanoseconds. */
const alternativeSchema = z.object({ token: z.string(), logprob: z.number() });
const logprobSchema = alternativeSchema.extend({
  top_logprobs: z.array(alternativeSchema).nullish(),
});

export const chunkSchema = z.object({
  model: z.string(),
  response: z.string().nullish(),
  message: z.object({ content: z.string().default("") }).nullish(),
  done: z.boolean(),
  done_reason: z.string().nullish(),
  logprobs: z.array(logprobSchema).nullish(),
  prompt_eval_count: z.int().nullish(),
  eval_count: z.int().nullish(),
});
export type OllamaChunk = z.output<typeof chunkSchema>;

export const errorSchema = z.object({ error: z.string() });
export const versionSchema = z.object({ version: z.string() });
export const showSchema = z.object({
  modelfile: z.string().default(""),
  template: z.string().nullish(),
  details: z
    .object({
      family: z.string().nullish(),
      quantization_level: z.string().nullish(),
    })
    .nullish(),
  model_info: z.record(z.string(), z.unknown()).nullish(),
});
export const psSchema = z.object({
  models: z
    .array(
      z.object({
        name: z.string(),
        model: z.string().nullish(),
        size: z.number().default(0),
        size_vram: z.number().default(0),
      }),
    )
    .nullish(),
});
export const embedSchema = z.object({
  embeddings: z.array(z.array(z.number())),
  prompt_eval_count: z.int().nullish(),
});
export const pullSchema = z.object({
  status: z.string().default(""),
  digest: z.string().nullish(),
  total: z.number().nullish(),
  completed: z.number().nullish(),
});

export function ollamaLogprobs(chunk: OllamaChunk, top: number): readonly Logprob[] | undefined {
  return chunk.logprobs?.map((entry) => ({
    token_id: null,
    text: entry.token,
    logprob: entry.logprob,
    top: likeliest(
      (entry.top_logprobs ?? []).map(({ token, logprob }) => ({
        token_id: null,
        text: token,
        logprob,
      })),
      top,
    ),
  }));
}
