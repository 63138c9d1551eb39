import { z } from "cjm-substrate/worker";
import { openAiConfigSchema } from "./openai/config.ts";

/** Changes that make the engine anew. */
const engineField = { reloadTrigger: "engine" } as const;

const endpointSchema = z.strictObject({
  host: z.string().min(1).default("127.0.0.1").describe("Address to listen at."),
  port: z.int().min(0).max(65_535).default(0).describe("0: a free one; `endpoint` tells which."),
});

export const configSchema = z.strictObject({
  engine: z
    .enum(["llama-cpp", "openai"])
    .default("llama-cpp")
    .meta(engineField)
    .describe("What generates: llama.cpp in this process, or a server with the OpenAI API."),
  openai: openAiConfigSchema
    .nullable()
    .default(null)
    .meta(engineField)
    .describe("The server of engine openai; all other fields but the endpoint are llama-cpp's."),
  model: z
    .string()
    .default("")
    .meta(engineField)
    .describe("A GGUF file, or a folder with one; relative to the models folder."),
  model_id: z
    .string()
    .default("")
    .meta(engineField)
    .describe("Name under which the model is served; empty: that of its file."),
  gpu: z
    .enum(["auto", "cuda", "vulkan", "metal", "none"])
    .default("auto")
    .meta(engineField)
    .describe("Which build of llama.cpp; auto: the best that is installed."),
  gpu_layers: z
    .int()
    .min(0)
    .optional()
    .meta(engineField)
    .describe("Layers on the GPU; absent: as many as fit."),
  context_size: z
    .int()
    .min(64)
    .optional()
    .meta(engineField)
    .describe("Tokens per slot, prompt and text; absent: the model's own, at most 4096."),
  slots: z
    .int()
    .min(1)
    .max(256)
    .default(4)
    .meta(engineField)
    .describe("Calls that generate at once; further ones wait. Each slot has memory of its own."),
  threads: z
    .int()
    .min(1)
    .max(256)
    .optional()
    .meta(engineField)
    .describe("Threads; absent: measured once per model and machine."),
  adapter_sets: z
    .int()
    .min(1)
    .max(64)
    .default(4)
    .meta(engineField)
    .describe("Sets of LoRA adapters kept ready beside the bare model."),
  idle_unload_seconds: z
    .number()
    .min(0)
    .default(0)
    .meta(engineField)
    .describe("Unload the model after so long without a call; 0: never."),
  model_folders: z
    .array(z.string().min(1))
    .default([])
    .describe("Further folders in which `list_models` looks."),
  adapter_registry: z
    .string()
    .min(1)
    .optional()
    .describe("Folder of the registry that `registry_id` means; absent: that of adapter-registry."),
  endpoint: endpointSchema
    .nullable()
    .default(null)
    .meta({ reloadTrigger: "endpoint" })
    .describe("Serve the OpenAI API too; null: only the host's calls."),
});
export type InferenceConfig = z.output<typeof configSchema>;
