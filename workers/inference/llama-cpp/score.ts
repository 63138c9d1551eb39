import type { Token } from "node-llama-cpp";
import { refuse } from "../fault.ts";
import type { ResolvedAdapter } from "../engine.ts";
import type { Score } from "../task/schemas.ts";
import { firstEntries, logOf } from "./logprobs.ts";
import type { LoadedModel } from "./model.ts";

const RAW = { generateNext: { probabilities: true, options: { temperature: 0 } } } as const;

/** Log-probabilities of a text, in F32 throughout and evaluated anew. */
export async function score(
  loaded: LoadedModel,
  tokens: readonly Token[],
  request: { readonly top: number; readonly adapters: readonly ResolvedAdapter[] },
  signal: AbortSignal,
): Promise<Score> {
  const room = loaded.contextSize - 1;
  if (tokens.length > room) {
    throw refuse("context_overflow", `${tokens.length} tokens exceed the context of ${room}`);
  }
  const context = await loaded.openExact(request.adapters, tokens.length + 2, signal);
  try {
    const outputs = await context
      .getSequence()
      .controlledEvaluate(tokens.map((token) => [token, RAW]));
    const none = new Map<Token, number>();
    const probabilities = outputs.map((output) => output?.next.probabilities ?? none);
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
    await context.dispose();
  }
}
