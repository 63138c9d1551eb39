import { z } from "cjm-substrate/worker";
import type { ResolvedAdapter } from "../../engine.ts";
import type { Score } from "../../task/schemas.ts";
import { failure } from "../failure.ts";

/** vLLM's `prompt_logprobs`: per position the prompt's token and the likeliest ones, by token id. */
const positionSchema = z.record(
  z.string(),
  z.object({ logprob: z.number(), rank: z.int().nullish(), decoded_token: z.string().nullish() }),
);
export const scoredSchema = z.object({
  choices: z
    .array(
      z.object({
        prompt_logprobs: z.array(positionSchema.nullable()).nullish(),
        prompt_token_ids: z.array(z.int()).nullish(),
        logprobs: z
          .object({ top_logprobs: z.array(z.record(z.string(), z.number()).nullable()).nullish() })
          .nullish(),
      }),
    )
    .min(1),
});
type Position = z.output<typeof positionSchema>;

/** The task's `score`. What follows the last token is in the one token that was generated. */
export function scoreOf(
  answer: z.output<typeof scoredSchema>,
  top: number,
  adapters: readonly ResolvedAdapter[],
): Score {
  const [choice] = answer.choices;
  const positions = choice?.prompt_logprobs;
  const ids = choice?.prompt_token_ids;
  if (!positions || !ids || positions.length !== ids.length) {
    throw failure("server_lied", "vLLM was asked for prompt_logprobs and sent none");
  }
  const tokens = ids.map((token_id, at) => {
    const own = positions[at]?.[String(token_id)];
    const logprob = at === 0 ? null : (own?.logprob ?? null);
    return { token_id, text: own?.decoded_token ?? "", logprob };
  });
  const following = afterLast(choice.logprobs?.top_logprobs?.[0] ?? {});
  const next = ids.map((_, at) => likeliest(positions[at + 1] ?? following, top));
  return {
    tokens,
    next,
    adapters: adapters.map(({ id, sha256, scale }) => ({ id, sha256, scale })),
  };
}

/** Keys are `token_id:<id>`, as was asked for. */
function afterLast(likeliest: Readonly<Record<string, number>>): Position {
  const entries = Object.entries(likeliest).map(([key, logprob]) => {
    return [key.replace(/^token_id:/u, ""), { logprob }] as const;
  });
  return Object.fromEntries(entries);
}

function likeliest(position: Position | null | undefined, top: number): Score["next"][number] {
  return Object.entries(position ?? {})
    .map(([id, { logprob }]) => ({ token_id: Number(id), logprob }))
    .toSorted((a, b) => b.logprob - a.logprob)
    .slice(0, top);
}
