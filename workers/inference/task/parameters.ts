import { dirRefSchema, fileRefSchema, z } from "cjm-substrate/worker";

/**
 * The parameters of task `text-generation` that an engine honours or refuses by name.
 *
 * An absent parameter has its neutral value from {@link NEUTRAL}: it leaves the model's own
 * distribution as it is. A parameter given at its neutral value is honoured by every engine.
 */
export const PARAMETER_NAMES = [
  "temperature",
  "top_p",
  "top_k",
  "min_p",
  "repetition_penalty",
  "presence_penalty",
  "frequency_penalty",
  "stop",
  "seed",
  "max_tokens",
  "logprobs",
  "json_schema",
  "grammar",
  "adapters",
] as const;
export type ParameterName = (typeof PARAMETER_NAMES)[number];

/** What an absent parameter means. Temperature 0 is greedy: the most likely token, always. */
export const NEUTRAL = {
  temperature: 1,
  top_p: 1,
  top_k: 0,
  min_p: 0,
  repetition_penalty: 1,
  presence_penalty: 0,
  frequency_penalty: 0,
  max_tokens: 512,
} as const;

export const sha256Schema = z.string().regex(/^sha256:[0-9a-f]{64}$/u, "expected sha256:<64 hex>");

/** A LoRA adapter on this machine: by path, or by a reference that carries its hash. */
export const adapterSourceSchema = z
  .union([fileRefSchema, dirRefSchema, z.string().min(1)])
  .meta({ format: "cjm-file" })
  .describe(
    "A GGUF file, or a PEFT folder with adapter_config.json and adapter_model.safetensors.",
  );

/** An adapter that worker `adapter-registry` keeps. */
export const registryIdSchema = z
  .string()
  .min(1)
  .max(200)
  .describe("An adapter of the registry; its files must be what was stored there.");

export function isOne(...values: readonly unknown[]): boolean {
  return values.filter((value) => value !== undefined).length === 1;
}

export const adapterUseSchema = z
  .strictObject({
    id: z.string().min(1).max(200).optional().describe("An adapter that load_adapter has loaded."),
    path: adapterSourceSchema.optional(),
    registry_id: registryIdSchema.optional(),
    sha256: sha256Schema.optional().describe("Refuse the adapter if its content differs."),
    scale: z.number().min(-16).max(16).default(1).describe("Factor of the adapter's change."),
  })
  .refine(({ id, path, registry_id: stored }) => isOne(id, path, stored), {
    error: "expected either id, path or registry_id",
  });
export type AdapterUse = z.output<typeof adapterUseSchema>;

/** Fields that every generating method takes; each is optional. */
export const parameterFields = {
  temperature: z
    .number()
    .min(0)
    .max(100)
    .optional()
    .describe("Divides the logits; 0 is greedy. @default 1"),
  top_p: z
    .number()
    .gt(0)
    .max(1)
    .optional()
    .describe("Keep the likeliest tokens that together reach this probability. @default 1"),
  top_k: z.int().min(0).optional().describe("Keep this many likeliest tokens; 0 keeps all."),
  min_p: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .describe("Keep tokens at least this share as likely as the likeliest. @default 0"),
  repetition_penalty: z
    .number()
    .gt(0)
    .max(10)
    .optional()
    .describe("Divides positive logits of tokens already in the text, multiplies negative ones."),
  presence_penalty: z
    .number()
    .min(-2)
    .max(2)
    .optional()
    .describe("Subtracted once from the logit of a token already generated."),
  frequency_penalty: z
    .number()
    .min(-2)
    .max(2)
    .optional()
    .describe("Subtracted once per earlier generation of the token."),
  stop: z
    .union([z.string().min(1), z.array(z.string().min(1)).max(16)])
    .optional()
    .describe("Texts that end the generation; they are not part of the result."),
  seed: z
    .int()
    .min(0)
    .max(0xffff_ffff)
    .optional()
    .describe("Same seed, model, adapters and parameters: same text on the same engine."),
  max_tokens: z.int().min(1).optional().describe("Most tokens to generate. @default 512"),
  logprobs: z
    .int()
    .min(0)
    .max(100)
    .optional()
    .describe("Log-probability of each token, and of this many likeliest ones beside it."),
  json_schema: z
    .record(z.string(), z.unknown())
    .optional()
    .describe("JSON Schema that the text satisfies; not with `grammar`."),
  grammar: z
    .string()
    .min(1)
    .max(100_000)
    .optional()
    .describe("GBNF grammar that the text satisfies; not with `json_schema`."),
  adapters: z
    .array(adapterUseSchema)
    .max(8)
    .optional()
    .describe("LoRA adapters that are applied to this call only."),
} as const;

/** What is not a parameter of the distribution but of the call: every engine honours it. */
export const callFields = {
  context_overflow: z
    .enum(["refuse", "truncate"])
    .default("refuse")
    .describe(
      "Prompt and max_tokens exceed the context: refuse, or drop the oldest tokens of the prompt.",
    ),
} as const;

export const parametersSchema = z.strictObject(parameterFields);
/** Parameters as a caller gave them: absent ones are absent. */
export type Parameters = z.output<typeof parametersSchema>;
