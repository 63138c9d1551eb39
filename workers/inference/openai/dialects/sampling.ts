import type { TextRequest } from "../../engine.ts";
import { NEUTRAL } from "../../task/parameters.ts";

type Given = TextRequest["parameters"];

/** Parameters with every neutral value filled in, as they are sent. */
export interface Sampling {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  readonly minP: number;
  readonly repetition: number;
  readonly presence: number;
  readonly frequency: number;
  readonly maxTokens: number;
}

/** What a caller left out is neutral; it is sent all the same where a server has defaults of its own. */
export function samplingOf(given: Given): Sampling {
  return {
    temperature: given.temperature ?? NEUTRAL.temperature,
    topP: given.top_p ?? NEUTRAL.top_p,
    topK: given.top_k ?? NEUTRAL.top_k,
    minP: given.min_p ?? NEUTRAL.min_p,
    repetition: given.repetition_penalty ?? NEUTRAL.repetition_penalty,
    presence: given.presence_penalty ?? NEUTRAL.presence_penalty,
    frequency: given.frequency_penalty ?? NEUTRAL.frequency_penalty,
    maxTokens: given.max_tokens ?? NEUTRAL.max_tokens,
  };
}

/** The seed to send: the caller's, or one drawn here so that the text can be had again; none if greedy. */
export function seedOf(given: Given): number | null {
  if (given.temperature === 0) return null;
  return given.seed ?? Math.floor(Math.random() * 0x1_0000_0000);
}

/** Leaves out the fields that have no value. */
export function present(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}
