import { fileRefSchema, z } from "cjm-substrate/worker";
import { profileSchema } from "../profile-book.ts";
import { sha256Schema } from "../task/parameters.ts";
import { modelCardSchema } from "../task/schemas.ts";

export const emptySchema = z.strictObject({});

export const statusOutputSchema = z.object({
  engine: z.string(),
  engine_version: z.string().describe("Empty until the engine has been loaded."),
  parameters: z.array(z.string()).describe("Parameters it honours; it refuses the others by name."),
  release_levels: z.array(z.string()),
  state: z.enum(["unloaded", "loading", "loaded", "asleep"]),
  active: z.int(),
  waiting: z.int(),
  slots: z.int(),
  adapters: z.array(z.string()),
  loads: z.int().describe("Loads of a model with a set of adapters since the worker's start."),
});

export const modelInfoInputSchema = z.strictObject({
  path: z.string().min(1).optional().describe("A GGUF file; absent: the configured model."),
});
export const listModelsOutputSchema = z.object({
  models: z.array(modelCardSchema),
  unreadable: z.array(z.object({ path: z.string(), reason: z.string() })),
});

export const downloadInputSchema = z.strictObject({
  url: z.url({ protocol: /^https?$/u }),
  sha256: sha256Schema.describe("Hash of the whole file; one that differs is not kept."),
  name: z
    .string()
    .regex(/^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}\/){0,3}[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/u)
    .optional()
    .describe("File in the models folder, below it too; absent: the last part of the URL."),
});
export const downloadOutputSchema = z.object({
  path: z.string(),
  sha256: sha256Schema,
  bytes: z.int(),
  resumed_from: z.int().describe("Bytes that an earlier attempt had fetched."),
  was_there: z.boolean().describe("The file was there already, with this hash."),
});

export const convertModelInputSchema = z.strictObject({
  path: z.string().min(1).describe("Folder with config.json, tokenizer.json and safetensors."),
  type: z.enum(["F32", "F16"]).default("F32").describe("Type of the weights in the GGUF file."),
});
export const convertAdapterInputSchema = z.strictObject({
  path: z.string().min(1).describe("PEFT folder of an adapter of a Llama-family model."),
  model: z
    .string()
    .min(1)
    .optional()
    .describe("GGUF file of its base; absent: the configured model."),
});
export const convertOutputSchema = z.object({ file: fileRefSchema, tensors: z.int() });

export const profilesOutputSchema = z.object({ profiles: z.array(profileSchema) });

export const endpointOutputSchema = z.object({
  url: z.string().describe("Base URL of the OpenAI API."),
  key_file: z
    .string()
    .nullable()
    .describe("File that holds the key; null where INFERENCE_API_KEY is the key."),
});
