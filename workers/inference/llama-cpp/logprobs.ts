import type { LlamaContextSequence, LlamaModel, Token } from "node-llama-cpp";
import type { Logprob, TokenLogprob } from "../task/schemas.ts";

/** A probability that single precision has rounded to zero; its logarithm must stay a JSON number. */
const SMALLEST = 1e-45;

/** Sampling that leaves the distribution as the model made it. */
const RAW = { generateNext: { probabilities: true, options: { temperature: 0 } } } as const;

/**
 * Natural logarithms of the probabilities of all tokens to follow `tokens`, by token number.
 *
 * The sequence is cleared first and holds `tokens` afterwards.
 */
export async function logprobsAfter(
  sequence: LlamaContextSequence,
  tokens: readonly Token[],
): Promise<Float64Array> {
  await sequence.clearHistory();
  const last = tokens.at(-1);
  if (last === undefined) return new Float64Array();
  const outputs = await sequence.controlledEvaluate([...tokens.slice(0, -1), [last, RAW]]);
  const probabilities = outputs.at(-1)?.next.probabilities ?? new Map<Token, number>();
  const logs = new Float64Array(probabilities.size);
  for (const [token, probability] of probabilities) logs[token] = logOf(probability);
  return logs;
}

/**
 * The distribution behind the last token of a sequence, evaluated a second time: the sampler has
 * changed the first one.
 */
export async function rawProbabilities(
  sequence: LlamaContextSequence,
): Promise<ReadonlyMap<Token, number>> {
  const last = sequence.contextTokens.at(-1);
  const end = sequence.nextTokenIndex;
  if (last === undefined) return new Map();
  await sequence.eraseContextTokenRanges([{ start: end - 1, end }]);
  const [output] = await sequence.controlledEvaluate([[last, RAW]]);
  return output?.next.probabilities ?? new Map();
}

/** @param probabilities likeliest first */
export function logprobOf(
  model: LlamaModel,
  token: Token,
  probabilities: ReadonlyMap<Token, number>,
  top: number,
): Logprob {
  return {
    ...entryOf(model, token, probabilities.get(token) ?? 0),
    top: [...firstEntries(probabilities, top)].map(([other, value]) =>
      entryOf(model, other, value),
    ),
  };
}

export function* firstEntries(
  probabilities: ReadonlyMap<Token, number>,
  count: number,
): Generator<readonly [Token, number]> {
  let left = count;
  for (const entry of probabilities) {
    if (left <= 0) return;
    left -= 1;
    yield entry;
  }
}

function entryOf(model: LlamaModel, token: Token, probability: number): TokenLogprob {
  return { token_id: token, text: model.detokenize([token], true), logprob: logOf(probability) };
}

export function logOf(probability: number): number {
  return Math.log(Math.max(probability, SMALLEST));
}
