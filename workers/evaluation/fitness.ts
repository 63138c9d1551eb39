import { mean, passRate, type Tally } from "./pass-at-k.ts";

/** Share of the fitness that is the pass rate; the rest is the diversity. */
export const PASS_SHARE = 0.7;

/** `0.7 * pass rate + 0.3 * diversity`. */
export function fitness(rate: number, diversity: number): number {
  return PASS_SHARE * rate + (1 - PASS_SHARE) * diversity;
}

/**
 * What a candidate adds to those that are there: the probability that it answers a task right which
 * a peer drawn at random answers wrong, over its tasks.
 *
 * 0 for what fails everywhere (failing differently is worth nothing) and for a copy of peers that
 * never fail; at most the pass rate, which it is where there are no peers.
 */
export function diversity(own: readonly Tally[], peers: readonly (readonly Tally[])[]): number {
  const answered = own.filter(({ n }) => n > 0);
  if (answered.length === 0) return 0;
  return mean(answered.map(({ task, n, c }) => (c / n) * (1 - peerRate(task, peers))));
}

function peerRate(task: string, peers: readonly (readonly Tally[])[]): number {
  const rates = peers.flatMap((tallies) => {
    const rate = passRate(tallies.filter((tally) => tally.task === task));
    return rate === null ? [] : [rate];
  });
  return rates.length === 0 ? 0 : mean(rates);
}
