import { defineAction, type Call } from "cjm-substrate/worker";
import type { TextInput } from "../engine.ts";
import { unsupported } from "../fault.ts";
import type { Service } from "../service.ts";
import { drain, type Asked } from "../task/request.ts";
import {
  chatInputSchema,
  countTokensInputSchema,
  countTokensOutputSchema,
  embedInputSchema,
  embedOutputSchema,
  generateInputSchema,
  generationSchema,
  scoreInputSchema,
  scoreOutputSchema,
  streamChunkSchema,
  streamInputSchema,
  type Generation,
  type Message,
} from "../task/schemas.ts";

interface GenerationActions {
  readonly generate: ReturnType<typeof makeGenerate>;
  readonly chat: ReturnType<typeof makeChat>;
  readonly stream: ReturnType<typeof makeStream>;
  readonly embed: ReturnType<typeof makeEmbed>;
  readonly score: ReturnType<typeof makeScore>;
  readonly count_tokens: ReturnType<typeof makeCountTokens>;
}

/** The generating methods of task `text-generation`, as actions. */
export function generationActions(service: Service): GenerationActions {
  return {
    generate: makeGenerate(service),
    chat: makeChat(service),
    stream: makeStream(service),
    embed: makeEmbed(service),
    score: makeScore(service),
    count_tokens: makeCountTokens(service),
  };
}

async function finish(
  service: Service,
  input: TextInput,
  asked: Asked,
  call: Call,
): Promise<Generation> {
  const result = await drain(service.stream(input, asked, call));
  report(call, result);
  return result;
}

/** Counts what was used and writes down which adapters were. */
function report(call: Call, { usage, adapters, evidence }: Generation): void {
  const { prompt_tokens, completion_tokens } = usage;
  call.usage({ prompt_tokens, completion_tokens });
  if (adapters.length === 0) return;
  const { model_sha256, adapter_effect } = evidence;
  call.account("adapters_applied", { adapters, model_sha256, adapter_effect });
}

const makeGenerate = (service: Service) =>
  defineAction({
    description: "Continues a text.",
    default: true,
    input: generateInputSchema,
    output: generationSchema,
    handler: ({ prompt, ...asked }, call) =>
      finish(service, { kind: "prompt", prompt }, asked, call),
  });

const makeChat = (service: Service) =>
  defineAction({
    description: "Answers a conversation, in the words of the model's chat template.",
    input: chatInputSchema,
    output: generationSchema,
    handler: ({ messages, ...asked }, call) =>
      finish(service, { kind: "chat", messages }, asked, call),
  });

const makeStream = (service: Service) =>
  defineAction({
    description: "As generate or chat, text by text as it is made.",
    input: streamInputSchema,
    output: streamChunkSchema,
    streaming: true,
    async *handler({ prompt, messages, ...asked }, call) {
      const input = inputOf(prompt, messages);
      const result = yield* service.stream(input, asked, call);
      report(call, result);
      yield { type: "done" as const, result };
    },
  });

const makeEmbed = (service: Service) =>
  defineAction({
    description: "Turns texts into vectors.",
    input: embedInputSchema,
    output: embedOutputSchema,
    async handler({ input, normalize }, { signal }) {
      const { engine } = service;
      if (engine.embed === undefined) throw unsupported("embed", engine.name);
      return await engine.embed(
        typeof input === "string" ? [input] : input,
        { normalize },
        { signal },
      );
    },
  });

const makeScore = (service: Service) =>
  defineAction({
    description: "Log-probabilities of a given text, token by token.",
    input: scoreInputSchema,
    output: scoreOutputSchema,
    handler: (request, call) => service.score(request, call),
  });

const makeCountTokens = (service: Service) =>
  defineAction({
    description: "Counts the tokens that a text or a conversation is for this model.",
    input: countTokensInputSchema,
    output: countTokensOutputSchema,
    async handler({ text, messages }, { signal }) {
      return { tokens: await service.engine.countTokens(inputOf(text, messages), { signal }) };
    },
  });

function inputOf(prompt: string | undefined, messages: readonly Message[] | undefined): TextInput {
  return messages === undefined
    ? { kind: "prompt", prompt: prompt ?? "" }
    : { kind: "chat", messages };
}
