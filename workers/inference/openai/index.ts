import type { Engine } from "../engine.ts";
import type { OpenAiConfig, ServerKind } from "./config.ts";
import { ServerConnection, type OpenAiPorts } from "./connection.ts";
import type { Dialect, Link } from "./dialects/dialect.ts";
import { GenericDialect } from "./dialects/generic.ts";
import { LlamaServerDialect } from "./dialects/llama-server.ts";
import { OllamaDialect } from "./dialects/ollama.ts";
import { VllmDialect } from "./dialects/vllm.ts";
import { ServerEngine } from "./engine.ts";

export { openAiConfigSchema } from "./config.ts";
export type { OpenAiPorts } from "./connection.ts";

/** Backend `openai`: one model server, of a kind that is named. Connects at the first call. */
export function createOpenAiEngine(config: OpenAiConfig, ports: OpenAiPorts): Engine {
  const connection = new ServerConnection(config, ports);
  return new ServerEngine(dialectOf(config.server, connection.link), connection);
}

function dialectOf(kind: ServerKind, link: Link): Dialect {
  if (kind === "vllm") return new VllmDialect(link);
  if (kind === "ollama") return new OllamaDialect(link);
  if (kind === "llama-server") return new LlamaServerDialect(link);
  return new GenericDialect(link);
}
