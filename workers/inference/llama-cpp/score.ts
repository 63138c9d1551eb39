import type { Token } from "node-llama-cpp";
import { refuse } from "../fault.ts";
import type { ResolvedAdapter } from "../engine.ts";
import type { Score } from "../task/schemas.ts";
import { firstEntries, logOf } from "./logprobs.ts";
import type { LoadedModel, Ready } from "./model.ts";

const RAW = { generateNext: { probabilities: true, options: { temperature: 0 } } } as const;

/** Log-probabilities of a text, evaluated anew: nothing of an earlier call is reused. */
export async function score(
  site: { readonly loaded: LoadedModel; readonly ready: Ready; readonly tokens: readonly Token[] },
  request: { readonly top: number; readonly adapters: readonly ResolvedAdapter[] },
  signal: AbortSignal,
): Promise<Score> {
  const { loaded, ready, tokens } = site;
  const room = ready.context.contextSize - 1;
  if (tokens.length > room) {
    throw refuse("context_overflow", `${tokens.length} tokens exceed the context of ${room}`);
  }
  const sequence = await ready.slots.acquire([], signal);
  try {
    await sequence.clearHistory();
    const outputs = await sequence.controlledEvaluate(tokens.map((token) => [token, RAW]));
    const probabilities = outputs.map(
      (output) => output?.next.probabilities ?? new Map<Token, number>(),
    );
    return {
      tokens: tokens.map((token, i) => ({
        token_id: token,
        text: loaded.model.detokenize([token], true),
        logprob: i === 0 ? null : logOf(probabilities[i - 1]?.get(token) ?? 0),
      })),
      next: probabilities.map((all) =>
        [...firstEntries(all, request.top)].map(([token, value]) => ({
          token_id: token,
          logprob: logOf(value),
        })),
      ),
      adapters: request.adapters.map(({ id, sha256, scale }) => ({ id, sha256, scale })),
    };
  } finally {
    ready.lastUsed = performance.now();
    ready.slots.release(sequence);
  }
}
