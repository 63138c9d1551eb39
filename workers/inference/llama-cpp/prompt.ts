import type { LlamaModel, Token } from "node-llama-cpp";
import type { TextInput } from "../engine.ts";
import { refuse } from "../fault.ts";
import type { Message } from "../task/schemas.ts";

/** Marks that no tokenizer knows stand for the contents while a template is rendered. */
const MARK = "\uE000";
const MARKS = /\uE000(\d+)\uE000/u;

/** The model's own template, made ready once. */
export interface ChatTemplate {
  readonly render: (messages: readonly Message[]) => string;
}

/**
 * @returns undefined for a model without a template
 * @throws {CjmError} `model_invalid` for a template that cannot be parsed
 */
export async function chatTemplateOf(model: LlamaModel): Promise<ChatTemplate | undefined> {
  const source = model.fileInfo.metadata.tokenizer.chat_template;
  if (source === undefined || source === "") return undefined;
  const { Template } = await import("@huggingface/jinja");
  try {
    const template = new Template(source);
    return { render: (messages) => template.render(variables(model, messages)) };
  } catch (error) {
    throw refuse("model_invalid", `The model's chat template cannot be parsed`, { cause: error });
  }
}

function variables(model: LlamaModel, messages: readonly Message[]): Record<string, unknown> {
  return {
    messages: messages.map(({ role, content }) => ({ role, content })),
    add_generation_prompt: true,
    bos_token: model.tokens.bosString ?? "",
    eos_token: model.tokens.eosString ?? "",
  };
}

/** The tokens an input stands for. What a caller wrote never becomes a special token. */
export function tokensOf(
  model: LlamaModel,
  template: ChatTemplate | undefined,
  input: TextInput,
): Token[] {
  if (input.kind === "prompt") return withBos(model, model.tokenize(input.prompt));
  if (template === undefined) {
    throw refuse("chat_template_missing", "The model has no chat template: use `generate`");
  }
  return chatTokens(model, template, input.messages);
}

function withBos(model: LlamaModel, tokens: Token[]): Token[] {
  const { bos, shouldPrependBosToken } = model.tokens;
  return shouldPrependBosToken && bos !== null ? [bos, ...tokens] : tokens;
}

function chatTokens(
  model: LlamaModel,
  template: ChatTemplate,
  messages: readonly Message[],
): Token[] {
  const isPlain = messages.every(({ content }) => !hasSpecial(model, content));
  if (isPlain) return model.tokenize(rendered(template, messages), true);
  // Contents that read like special tokens are kept apart from the template's own.
  const marked = messages.map((message, index) => ({
    ...message,
    content: `${MARK}${index}${MARK}`,
  }));
  return rendered(template, marked)
    .split(MARKS)
    .flatMap((part, index) =>
      index % 2 === 0
        ? model.tokenize(part, true)
        : model.tokenize(messages[Number(part)]?.content ?? ""),
    );
}

function hasSpecial(model: LlamaModel, content: string): boolean {
  const plain = model.tokenize(content);
  const special = model.tokenize(content, true);
  return plain.length !== special.length || plain.some((token, i) => token !== special[i]);
}

function rendered(template: ChatTemplate, messages: readonly Message[]): string {
  try {
    return template.render(messages);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw refuse("chat_template_missing", `The chat template refuses these messages: ${why}`, {
      fields: ["messages"],
      cause: error,
    });
  }
}
