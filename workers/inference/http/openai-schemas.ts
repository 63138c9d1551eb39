import { z } from "cjm-substrate/worker";
import { adapterUseSchema, parameterFields } from "../task/parameters.ts";

const textPartSchema = z.strictObject({ type: z.literal("text"), text: z.string() });
const contentSchema = z
  .union([z.string(), z.array(textPartSchema).min(1)])
  .transform((content) =>
    typeof content === "string" ? content : content.map(({ text }) => text).join(""),
  );
const messageSchema = z.strictObject({
  role: z
    .enum(["system", "developer", "user", "assistant", "tool"])
    .transform((role) => (role === "developer" ? "system" : role)),
  content: contentSchema,
});

const responseFormatSchema = z.discriminatedUnion("type", [
  z.strictObject({ type: z.literal("text") }),
  z.strictObject({ type: z.literal("json_object") }),
  z.strictObject({
    type: z.literal("json_schema"),
    json_schema: z.strictObject({
      name: z.string().optional(),
      description: z.string().optional(),
      strict: z.boolean().nullish(),
      schema: z.record(z.string(), z.unknown()),
    }),
  }),
]);

const { temperature, top_p, presence_penalty, frequency_penalty, stop, seed } = parameterFields;
const { top_k, min_p, repetition_penalty, grammar, max_tokens } = parameterFields;

/** The API's fields that are ours under the same name, and ours that it has not; null is absent. */
const commonFields = {
  model: z.string(),
  temperature: temperature.nullish(),
  top_p: top_p.nullish(),
  presence_penalty: presence_penalty.nullish(),
  frequency_penalty: frequency_penalty.nullish(),
  stop: stop.nullish(),
  seed: seed.nullish(),
  max_tokens: max_tokens.nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.strictObject({ include_usage: z.boolean().optional() }).nullish(),
  n: z.literal(1).nullish(),
  // These change nothing of an answer.
  user: z.string().nullish(),
  metadata: z.record(z.string(), z.string()).nullish(),
  store: z.literal(false).nullish(),
  top_k,
  min_p,
  repetition_penalty,
  grammar,
  adapters: z.array(adapterUseSchema).max(8).optional(),
} as const;

export const chatRequestSchema = z.strictObject({
  messages: z.array(messageSchema).min(1),
  max_completion_tokens: max_tokens.nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(100).nullish(),
  response_format: responseFormatSchema.nullish(),
  ...commonFields,
});
export type ChatRequest = z.output<typeof chatRequestSchema>;

export const completionRequestSchema = z.strictObject({
  prompt: z.union([z.string(), z.tuple([z.string()]).transform(([only]) => only)]),
  logprobs: z.int().min(0).max(100).nullish(),
  echo: z.literal(false).nullish(),
  best_of: z.literal(1).nullish(),
  ...commonFields,
});
export type CompletionRequest = z.output<typeof completionRequestSchema>;

export const embeddingRequestSchema = z.strictObject({
  model: z.string(),
  input: z.union([z.string(), z.array(z.string()).min(1).max(2048)]),
  encoding_format: z.enum(["float", "base64"]).default("float"),
  user: z.string().nullish(),
});
