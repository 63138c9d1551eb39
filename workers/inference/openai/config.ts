import { z } from "cjm-substrate/worker";
import { PARAMETER_NAMES } from "../task/parameters.ts";

export const SERVER_KINDS = ["generic", "vllm", "ollama", "llama-server"] as const;
export type ServerKind = (typeof SERVER_KINDS)[number];

const seconds = (value: number): z.ZodDefault<z.ZodNumber> =>
  z.number().positive().max(86_400).default(value);

/** A server program that the worker starts, watches and ends. */
export const managedServerSchema = z.strictObject({
  command: z
    .array(z.string().min(1))
    .min(1)
    .describe("Program and arguments; {port} is replaced by a free port."),
  env: z.record(z.string(), z.string()).default({}).describe("Added to the worker's environment."),
  cwd: z.string().nullable().default(null).describe("Working folder; null is the worker's."),
  ready_seconds: seconds(900).describe("How long it may take until it answers."),
  grace_seconds: seconds(1.5).describe(
    "How long it may take to end before it is killed; the host gives the worker 2 s.",
  ),
  idle_unload_seconds: z
    .number()
    .min(0)
    .max(86_400)
    .default(0)
    .describe("End it after so long without a call; the next one starts it again. 0: never."),
});
export type ManagedServerConfig = z.output<typeof managedServerSchema>;

/** Backend `openai` of the worker: one model server. */
export const openAiConfigSchema = z
  .strictObject({
    server: z
      .enum(SERVER_KINDS)
      .default("generic")
      .describe("Which server it is; generic asks for nothing beyond the OpenAI API."),
    base_url: z
      .string()
      .regex(/^https?:\/\//u, "expected http:// or https://")
      .nullable()
      .default(null)
      .describe("With or without /v1; {port} is a managed server's. null: this machine's."),
    model: z
      .string()
      .min(1)
      .nullable()
      .default(null)
      .describe("Name under which the server has the model; null: the only one it lists."),
    managed: managedServerSchema
      .nullable()
      .default(null)
      .describe("Start the server as a child of the worker; null: it runs already."),
    also_honours: z
      .array(z.enum(PARAMETER_NAMES))
      .default([])
      .describe("Parameters that this server honours although its kind does not promise it."),
    does_not_honour: z
      .array(z.enum(PARAMETER_NAMES))
      .default([])
      .describe("Parameters to refuse although its kind promises them."),
    streaming: z
      .boolean()
      .default(true)
      .describe("false: ask for whole answers, from a server whose streams report no usage."),
    context_length: z
      .int()
      .positive()
      .nullable()
      .default(null)
      .describe("Tokens of context; sent to Ollama, else only where the server does not tell."),
    max_concurrent: z
      .int()
      .min(1)
      .max(1024)
      .nullable()
      .default(null)
      .describe("Calls at once; more wait. null: the server's slots, or 32."),
    keep_alive: z
      .string()
      .regex(/^-?\d+(\.\d+)?(ms|s|m|h)?$/u)
      .default("5m")
      .describe("Ollama: how long it keeps the model loaded after a call."),
    pull: z.boolean().default(false).describe("Ollama: prefetch may download the model."),
    sleep_level: z
      .union([z.literal(1), z.literal(2)])
      .default(1)
      .describe("vLLM: see its docs."),
    freed_share: z
      .number()
      .gt(0)
      .max(1)
      .default(0.9)
      .describe("Share of the server's measured VRAM that a sleep has to free."),
    connect_seconds: seconds(5).describe("How long a connection may take."),
    first_token_seconds: seconds(300).describe("Longest silence before the first token."),
    idle_seconds: seconds(60).describe("Longest silence between two tokens."),
    control_seconds: seconds(30).describe("How long a request may take that generates nothing."),
    drain_seconds: seconds(120).describe("How long sleep and unload wait for running calls."),
    settle_seconds: seconds(10).describe("How long the server may take to be what it says it is."),
    max_response_mb: z.int().min(1).max(1024).default(64).describe("Largest answer of the server."),
  })
  .refine((config) => config.server !== "ollama" || config.model !== null, {
    path: ["model"],
    message: "ollama needs a model",
  })
  .refine(
    (config) => config.server !== "generic" || config.base_url !== null || config.managed !== null,
    { path: ["base_url"], message: "a generic server needs its address" },
  )
  .refine((config) => config.base_url?.includes("{port}") !== true || config.managed !== null, {
    path: ["base_url"],
    message: "{port} is the port of a managed server",
  });
export type OpenAiConfig = z.output<typeof openAiConfigSchema>;

const DEFAULT_PORT: Readonly<Record<ServerKind, number>> = {
  generic: 8000,
  vllm: 8000,
  ollama: 11_434,
  "llama-server": 8080,
};

/** Where a server's own endpoints are (`root`), and the OpenAI ones (`api`). */
export interface Address {
  readonly root: string;
  readonly api: string;
}

/** `port` is a managed server's. A path before `/v1` belongs to both. */
export function addressOf(config: OpenAiConfig, port: number | undefined): Address {
  const usual = `http://127.0.0.1:${port ?? DEFAULT_PORT[config.server]}`;
  const given = (config.base_url ?? usual).replaceAll("{port}", String(port ?? ""));
  const root = given.replace(/\/+$/u, "").replace(/\/v1$/u, "");
  return { root, api: `${root}/v1` };
}
