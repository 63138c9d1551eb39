import type { TextRequest } from "../../engine.ts";
import { PARAMETER_NAMES, type ParameterName } from "../../task/parameters.ts";
import type { OpenAiConfig, ServerKind } from "../config.ts";
import type { Refused } from "./dialect.ts";

/** What a kind of server honours, and limits of its values that the task does not have. */
interface Kind {
  readonly promised: readonly ParameterName[];
  readonly maxStops: number;
  readonly maxLogprobs: number;
  readonly truncates: boolean;
  /** Whether vectors and texts of several adapters, or other scales than 1, are possible. */
  readonly adapterScales: boolean;
}

const EVERYWHERE = [
  "temperature",
  "top_p",
  "stop",
  "seed",
  "max_tokens",
  "logprobs",
  "json_schema",
] as const satisfies readonly ParameterName[];

/**
 * No penalties of presence and frequency: llama.cpp's servers count the prompt's tokens too, and the
 * task counts only generated ones.
 */
const LLAMA_CPP = [
  ...EVERYWHERE,
  "top_k",
  "min_p",
  "repetition_penalty",
] as const satisfies readonly ParameterName[];

export const KINDS: Readonly<Record<ServerKind, Kind>> = {
  // What the OpenAI API itself defines; extensions are refused unless the operator names them.
  generic: {
    promised: [...EVERYWHERE, "presence_penalty", "frequency_penalty"],
    maxStops: 4,
    maxLogprobs: 20,
    truncates: false,
    adapterScales: false,
  },
  // vLLM allows 20 log-probabilities unless it is started with --max-logprobs.
  vllm: {
    promised: PARAMETER_NAMES,
    maxStops: 16,
    maxLogprobs: 20,
    truncates: true,
    adapterScales: false,
  },
  // Its API has no grammar, and adapters only in a Modelfile.
  ollama: {
    promised: LLAMA_CPP,
    maxStops: 16,
    maxLogprobs: 20,
    truncates: false,
    adapterScales: false,
  },
  "llama-server": {
    promised: [...LLAMA_CPP, "grammar", "adapters"],
    maxStops: 16,
    maxLogprobs: 100,
    truncates: true,
    adapterScales: true,
  },
};

/** A kind's parameters, with what the operator adds and takes away. */
export function parametersOf(
  kind: ServerKind,
  { also_honours: added, does_not_honour: taken }: OpenAiConfig,
): ReadonlySet<ParameterName> {
  const honoured = new Set([...KINDS[kind].promised, ...added]);
  for (const name of taken) honoured.delete(name);
  return honoured;
}

/** Values that a kind cannot honour, although it knows the parameter. */
export function refusedValues(kind: ServerKind, request: TextRequest): readonly Refused[] {
  const { adapters, overflow, parameters, stop } = request;
  const { maxStops, maxLogprobs, truncates, adapterScales } = KINDS[kind];
  const refused: Refused[] = [];
  const refuse = (field: string, why: string): void => {
    refused.push({ field, why });
  };
  if (stop.length > maxStops) refuse("stop", `at most ${maxStops} texts`);
  if ((parameters.logprobs ?? 0) > maxLogprobs) refuse("logprobs", `at most ${maxLogprobs}`);
  if (overflow === "truncate" && !truncates) {
    refuse("context_overflow", "it cannot say how much it would drop");
  }
  if (!adapterScales && adapters.length > 1) refuse("adapters", "one at a time");
  if (!adapterScales && adapters.some(({ scale }) => scale !== 1)) {
    refuse("adapters", "scale 1 only");
  }
  return refused;
}
