import type { z } from "cjm-substrate/worker";
import type { TextInput } from "../../engine.ts";
import type { ModelCard } from "../../task/schemas.ts";
import { failure } from "../failure.ts";
import { ask } from "./ask.ts";
import type { Link, ServerFacts } from "./dialect.ts";
import {
  loraListSchema,
  modelsSchema,
  propsSchema,
  slotsSchema,
  templateSchema,
  tokensSchema,
} from "./llama-wire.ts";

/** The endpoints of llama-server that generate nothing. */
export class LlamaControl {
  readonly link: Link;
  #beginning: readonly number[] | undefined;

  constructor(link: Link) {
    this.link = link;
  }

  async props(signal: AbortSignal): Promise<z.output<typeof propsSchema>> {
    this.#beginning = undefined;
    return ask(this.link, "GET", "/props", { signal, schema: propsSchema });
  }

  async loras(signal: AbortSignal): Promise<z.output<typeof loraListSchema>> {
    return ask(this.link, "GET", "/lora-adapters", { signal, schema: loraListSchema });
  }

  /** How many of the server's slots work now, also for others. */
  async busySlots(signal: AbortSignal): Promise<number> {
    const slots = await ask(this.link, "GET", "/slots", { signal, schema: slotsSchema });
    return slots.filter(({ is_processing: busy }) => busy).length;
  }

  /** A prompt's special-token texts are text; a chat template's are tokens. */
  async tokenize(input: TextInput, signal: AbortSignal): Promise<readonly number[]> {
    const isChat = input.kind === "chat";
    const content = isChat ? await this.#template(input.messages, signal) : input.prompt;
    const body = { content, add_special: true, parse_special: isChat };
    const { tokens } = await ask(this.link, "POST", "/tokenize", {
      signal,
      body,
      schema: tokensSchema,
    });
    if (tokens.length > 0) return tokens;
    throw failure("input_refused", "the prompt has no token", { fields: ["prompt"] });
  }

  /** The tokens that the tokenizer puts before every text; usually one or none. */
  async beginning(signal: AbortSignal): Promise<readonly number[]> {
    if (this.#beginning !== undefined) return this.#beginning;
    const body = { content: "", add_special: true };
    const { tokens } = await ask(this.link, "POST", "/tokenize", {
      signal,
      body,
      schema: tokensSchema,
    });
    this.#beginning = tokens;
    return tokens;
  }

  async card(facts: ServerFacts, signal: AbortSignal): Promise<Partial<ModelCard>> {
    const props = await this.props(signal);
    const { data } = await ask(this.link, "GET", "/v1/models", { signal, schema: modelsSchema });
    const meta = data[0]?.meta;
    return {
      id: facts.model,
      path: props.model_path === "" ? null : props.model_path,
      quantization: props.model_ftype ?? null,
      parameters: meta?.n_params ?? null,
      bytes: meta?.size ?? null,
      context_length: meta?.n_ctx_train ?? facts.contextLength ?? null,
      chat_template: (props.chat_template ?? "") !== "",
    };
  }

  async #template(messages: unknown, signal: AbortSignal): Promise<string> {
    const options = { signal, body: { messages }, schema: templateSchema };
    return (await ask(this.link, "POST", "/apply-template", options)).prompt;
  }
}

/**
 * The part of a prompt that fits beside `maxTokens`: all of it, or its newest tokens behind the
 * beginning-of-text token.
 *
 * @throws {CjmError} `context_overflow` where dropping is not allowed, or nothing would be left.
 */
export function fitPrompt(
  tokens: readonly number[],
  beginning: readonly number[],
  limits: { context: number; maxTokens: number; overflow: "refuse" | "truncate" },
): readonly number[] {
  const { context, maxTokens, overflow } = limits;
  const room = context - maxTokens;
  if (tokens.length <= room) return tokens;
  const kept = beginning.every((token, at) => tokens[at] === token) ? beginning : [];
  if (overflow === "refuse" || room <= kept.length) {
    const asked = `${tokens.length} tokens of prompt and ${maxTokens} of max_tokens`;
    throw failure("context_overflow", `${asked} exceed the context of ${context}`, {
      fields: ["max_tokens"],
    });
  }
  return [...kept, ...tokens.slice(tokens.length - (room - kept.length))];
}
