import { availableParallelism } from "node:os";
import type { LlamaModel } from "node-llama-cpp";

const TOKENS = 6;
/** A count that is this much slower than the best one ends the search: more threads only spin more. */
const WORSE = 1.15;

/**
 * Finds how many threads generate fastest, by generating a few tokens with 1, 2, 4, … of them.
 *
 * A count by core number is no substitute: llama.cpp's threads spin while they wait for each other,
 * so that on cores shared with other work one thread too many costs a factor of hundreds.
 */
export async function measureThreads(model: LlamaModel, signal: AbortSignal): Promise<number> {
  let best = { threads: 1, milliseconds: Infinity };
  for (const threads of candidates(availableParallelism())) {
    signal.throwIfAborted();
    const milliseconds = await timeOf(model, threads, best.milliseconds * WORSE);
    if (milliseconds < best.milliseconds) best = { threads, milliseconds };
    else if (milliseconds > best.milliseconds * WORSE) break;
  }
  return best.threads;
}

function candidates(cores: number): number[] {
  const counts: number[] = [];
  for (let count = 1; count < cores; count *= 2) counts.push(count);
  return [...counts, cores];
}

/** Time of the fastest token, which what else runs on the machine disturbs least. */
async function timeOf(model: LlamaModel, threads: number, limit: number): Promise<number> {
  const context = await model.createContext({ sequences: 1, contextSize: 64, threads });
  try {
    const first = model.tokens.bos ?? model.tokenize("a").at(0);
    if (first === undefined) return 0;
    let fastest = Infinity;
    let from = performance.now();
    const started = from;
    const tokens = context.getSequence().evaluate([first], { temperature: 0, yieldEogToken: true });
    let count = 0;
    for await (const _ of tokens) {
      const now = performance.now();
      if (count > 0) fastest = Math.min(fastest, now - from);
      from = now;
      count += 1;
      if (count > TOKENS || now - started > limit * TOKENS) break;
    }
    return fastest;
  } finally {
    await context.dispose();
  }
}
