import { refuse } from "./fault.ts";
import { diversity, fitness } from "./fitness.ts";
import { meanPassAtK, passRate, type PassAtK, type Tally } from "./pass-at-k.ts";
import type { Item } from "./answers.ts";

/** How a task went, and what kind of task it is. */
export interface TaskScore extends Tally {
  readonly family: string;
}

/** What one candidate achieved. */
export interface CandidateScore {
  readonly id: string;
  readonly samples: number;
  readonly pass_rate: number;
  readonly pass_at_k: readonly PassAtK[];
  readonly families: readonly {
    readonly family: string;
    readonly tasks: number;
    readonly pass_rate: number;
    readonly pass_at_k: readonly PassAtK[];
  }[];
  readonly diversity: number;
  readonly fitness: number;
  readonly tasks: readonly TaskScore[];
}

/** Others whose answers were counted before. */
export interface Peer {
  readonly id: string;
  readonly tasks: readonly Tally[];
}

/**
 * Counts which answers passed all their cases, and what that makes of each candidate; every other
 * candidate, and every peer, is what its diversity is measured against.
 *
 * @throws {CjmError} if there is not exactly one check for each item.
 */
export function score(
  items: readonly Item[],
  checks: readonly { readonly all_passed: boolean }[],
  { k, peers }: { readonly k: readonly number[]; readonly peers: readonly Peer[] },
): CandidateScore[] {
  if (items.length !== checks.length) {
    throw refuse(`${items.length} items and ${checks.length} checks`, ["items", "checks"]);
  }
  const tallies = tally(items, checks);
  return [...tallies].map(([id, tasks]) => {
    const others = [...tallies].filter(([other]) => other !== id).map(([, own]) => own);
    const earlier = peers.filter((peer) => !tallies.has(peer.id)).map((peer) => peer.tasks);
    const spread = diversity(tasks, [...others, ...earlier]);
    const rate = passRate(tasks) ?? 0;
    const families = Map.groupBy(tasks, ({ family }) => family);
    return {
      id,
      samples: tasks.reduce((sum, { n }) => sum + n, 0),
      pass_rate: rate,
      pass_at_k: k.map((one) => meanPassAtK(tasks, one)),
      families: [...families].map(([family, own]) => ({
        family,
        tasks: own.length,
        pass_rate: passRate(own) ?? 0,
        pass_at_k: k.map((one) => meanPassAtK(own, one)),
      })),
      diversity: spread,
      fitness: fitness(rate, spread),
      tasks,
    };
  });
}

function tally(
  items: readonly Item[],
  checks: readonly { readonly all_passed: boolean }[],
): Map<string, TaskScore[]> {
  const byCandidate = Map.groupBy(
    items.map((item, index) => ({ ...item, passed: checks[index]?.all_passed === true })),
    ({ candidate }) => candidate,
  );
  const tallies = new Map<string, TaskScore[]>();
  for (const [candidate, own] of byCandidate) {
    const tasks = [...Map.groupBy(own, ({ task }) => task)].map(([task, answers]) => ({
      task,
      family: answers[0]?.family ?? "",
      n: answers.length,
      c: answers.filter(({ passed }) => passed).length,
    }));
    tallies.set(candidate, tasks);
  }
  return tallies;
}
