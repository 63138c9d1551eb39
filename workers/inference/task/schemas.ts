import { z } from "cjm-substrate/worker";
import {
  adapterSourceSchema,
  callFields,
  isOne,
  parameterFields,
  registryIdSchema,
  sha256Schema,
} from "./parameters.ts";

export const TASK = "text-generation";

export const messageSchema = z.strictObject({
  role: z.enum(["system", "user", "assistant", "tool"]),
  content: z.string(),
});
export type Message = z.output<typeof messageSchema>;

const promptSchema = z.string().describe("Text to continue, as it is: no chat template.");
const messagesSchema = z
  .array(messageSchema)
  .min(1)
  .describe("Conversation; the model's chat template makes the prompt of it.");

const isOneConstraint = (input: { json_schema?: unknown; grammar?: unknown }): boolean =>
  input.json_schema === undefined || input.grammar === undefined;
const ONE_CONSTRAINT = { error: "expected json_schema or grammar, not both", path: ["grammar"] };
const isOneInput = (input: { prompt?: unknown; messages?: unknown }): boolean =>
  (input.prompt === undefined) !== (input.messages === undefined);
const ONE_INPUT = { error: "expected either prompt or messages", path: ["prompt"] };

const shared = { ...parameterFields, ...callFields };

export const generateInputSchema = z
  .strictObject({ prompt: promptSchema, ...shared })
  .refine(isOneConstraint, ONE_CONSTRAINT);
export const chatInputSchema = z
  .strictObject({ messages: messagesSchema, ...shared })
  .refine(isOneConstraint, ONE_CONSTRAINT);
export const streamInputSchema = z
  .strictObject({
    prompt: promptSchema.optional(),
    messages: messagesSchema.optional(),
    ...shared,
  })
  .refine(isOneInput, ONE_INPUT)
  .refine(isOneConstraint, ONE_CONSTRAINT);

const tokenLogprobSchema = z.object({
  token_id: z.int().nullable().describe("Null where the engine does not tell."),
  text: z.string(),
  logprob: z.number().describe("Natural logarithm, of the model's distribution before sampling."),
});
export const logprobSchema = tokenLogprobSchema.extend({
  top: z.array(tokenLogprobSchema).describe("The likeliest tokens here, likeliest first."),
});
export type TokenLogprob = z.output<typeof tokenLogprobSchema>;
export type Logprob = z.output<typeof logprobSchema>;

export const usageSchema = z.object({
  prompt_tokens: z.int(),
  cached_prompt_tokens: z
    .int()
    .describe("Part of prompt_tokens that an earlier call had evaluated already."),
  completion_tokens: z.int(),
  total_tokens: z.int(),
});
export type Usage = z.output<typeof usageSchema>;

export const timingsSchema = z.object({
  queued_ms: z.number().describe("Waited for a slot."),
  first_token_ms: z.number().describe("From the start of the call to its first token."),
  total_ms: z.number(),
  tokens_per_second: z
    .number()
    .nullable()
    .describe("Of the tokens after the first; null below two tokens."),
});
export type Timings = z.output<typeof timingsSchema>;

/** `stop`: the model ended its text. `stop_sequence`: one of `stop`. `length`: max_tokens or the context. */
export const FINISH_REASONS = ["stop", "stop_sequence", "length"] as const;
export type FinishReason = (typeof FINISH_REASONS)[number];

export const appliedAdapterSchema = z.object({
  id: z.string(),
  sha256: sha256Schema.describe("Content: of a file, or of a folder as its DirRef has it."),
  scale: z.number(),
});
export type AppliedAdapter = z.output<typeof appliedAdapterSchema>;

export const evidenceSchema = z.object({
  engine: z.string().describe("llama-cpp, openai, transformers."),
  engine_version: z.string(),
  model: z.string().describe("Name under which the engine serves the model."),
  model_sha256: sha256Schema.nullable().describe("Null where a server does not tell."),
  adapter_effect: z
    .number()
    .nullable()
    .describe(
      "Largest change of a next-token log-probability that the adapters made on a probe prompt; " +
        "null without adapters, or where it cannot be measured.",
    ),
  prompt_truncated_tokens: z.int().describe("Tokens dropped by context_overflow: truncate."),
});
export type Evidence = z.output<typeof evidenceSchema>;

/** Result of `generate` and `chat`, and of the last chunk of `stream`. */
export const generationSchema = z.object({
  text: z.string(),
  finish_reason: z.enum(FINISH_REASONS),
  stop_sequence: z.string().nullable().describe("Which of `stop` ended the text."),
  seed: z.int().nullable().describe("Seed that repeats this text; null where none applies."),
  usage: usageSchema,
  timings: timingsSchema,
  adapters: z.array(appliedAdapterSchema).describe("What was applied, in the order given."),
  logprobs: z.array(logprobSchema).nullable().describe("One per token; null unless asked for."),
  evidence: evidenceSchema,
});
export type Generation = z.output<typeof generationSchema>;

export const deltaSchema = z.object({
  type: z.literal("delta"),
  text: z.string().describe("What follows the text so far; never half a character."),
  logprobs: z.array(logprobSchema).optional(),
});
export type Delta = z.output<typeof deltaSchema>;
export const streamChunkSchema = z.discriminatedUnion("type", [
  deltaSchema,
  z.object({ type: z.literal("done"), result: generationSchema }),
]);
export type StreamChunk = z.output<typeof streamChunkSchema>;

export const embedInputSchema = z.strictObject({
  input: z.union([z.string(), z.array(z.string()).min(1).max(2048)]),
  normalize: z.boolean().default(true).describe("Scale each vector to length 1."),
});
export const embedOutputSchema = z.object({
  embeddings: z.array(z.array(z.number())),
  dimensions: z.int(),
  usage: z.object({ prompt_tokens: z.int() }),
  model_sha256: sha256Schema.nullable(),
});
export type Embeddings = z.output<typeof embedOutputSchema>;

export const countTokensInputSchema = z
  .strictObject({ text: z.string().optional(), messages: messagesSchema.optional() })
  .refine((input) => (input.text === undefined) !== (input.messages === undefined), {
    error: "expected either text or messages",
    path: ["text"],
  });
export const countTokensOutputSchema = z.object({ tokens: z.int() });

/** Log-probabilities of a given text, token by token: how two engines are compared. */
export const scoreInputSchema = z.strictObject({
  prompt: promptSchema,
  top: z.int().min(0).max(200_000).default(0).describe("Alternatives per position."),
  adapters: parameterFields.adapters,
});
export const scoreOutputSchema = z.object({
  tokens: z.array(
    z.object({
      token_id: z.int(),
      text: z.string(),
      logprob: z.number().nullable().describe("Given all tokens before it; null for the first."),
    }),
  ),
  next: z
    .array(z.array(z.object({ token_id: z.int(), logprob: z.number() })))
    .describe("Per token, the likeliest tokens to follow it, likeliest first."),
  adapters: z.array(appliedAdapterSchema),
});
export type Score = z.output<typeof scoreOutputSchema>;

export const adapterInfoSchema = z.object({
  id: z.string(),
  path: z.string(),
  sha256: sha256Schema,
  format: z.enum(["gguf", "peft", "server"]),
  bytes: z.int().nonnegative(),
  base_model: z.string().nullable().describe("As the adapter names it."),
  rank: z.int().nullable(),
  alpha: z.number().nullable(),
});
export type AdapterInfo = z.output<typeof adapterInfoSchema>;

export const listAdaptersInputSchema = z.strictObject({});
export const listAdaptersOutputSchema = z.object({ adapters: z.array(adapterInfoSchema) });
export const loadAdapterInputSchema = z
  .strictObject({
    id: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$/u)
      .describe("Name by which calls use it; must be free, or name the same content."),
    path: adapterSourceSchema.optional(),
    registry_id: registryIdSchema.optional(),
    sha256: sha256Schema.optional().describe("Refuse the adapter if its content differs."),
  })
  .refine(({ path, registry_id: stored }) => isOne(path, stored), {
    error: "expected either path or registry_id",
    path: ["path"],
  });
export const loadAdapterOutputSchema = z.object({
  adapter: adapterInfoSchema,
  effect: z.number().nullable().describe("As evidence.adapter_effect at scale 1."),
});
export const unloadAdapterInputSchema = z.strictObject({ id: z.string().min(1) });
export const unloadAdapterOutputSchema = z.object({
  id: z.string(),
  sha256: sha256Schema,
  held: z.string().describe("What memory stays in use, in words; empty when none does."),
});

/** What is known of a model without loading its weights. */
export const modelCardSchema = z.object({
  id: z.string(),
  path: z.string().nullable(),
  format: z.enum(["gguf", "safetensors", "server"]),
  architecture: z.string().nullable(),
  quantization: z.string().nullable(),
  parameters: z.int().nullable(),
  bytes: z.int().nullable(),
  context_length: z.int().nullable().describe("Tokens the model was trained for."),
  chat_template: z.boolean().nullable().describe("Whether `chat` is possible."),
  sha256: sha256Schema.nullable(),
});
export type ModelCard = z.output<typeof modelCardSchema>;
