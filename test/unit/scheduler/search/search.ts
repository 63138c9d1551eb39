import type { SchedulerRules } from "../../../../src/scheduler/index.ts";
import {
  check,
  cloneWorld,
  createWorld,
  isStuck,
  movesOf,
  Violation,
  worldKey,
  type Move,
  type Scenario,
  type World,
} from "./world.ts";

export interface SearchResult {
  readonly states: number;
  readonly transitions: number;
  /** Histories end only where all jobs have ended. */
  readonly finals: number;
  /** What went wrong and the moves that lead there; null when nothing can. */
  readonly violation: { readonly message: string; readonly moves: readonly string[] } | null;
}

interface Frame {
  readonly world: World;
  readonly key: number;
  readonly moves: readonly Move[];
  next: number;
  readonly label: string;
}

const UNFINISHED = 1;
const FINISHED = 2;

/**
 * Walks every interleaving of a scenario, depth first, each state once.
 *
 * Finds: a rule broken in some state, a state in which jobs wait and nothing can happen any more, and
 * a loop (a state that leads back to itself: jobs could wait for ever while things happen).
 */
export function explore(scenario: Scenario, rules: SchedulerRules): SearchResult {
  const seen = new Map<number, number>();
  const stack: Frame[] = [];
  let transitions = 0;
  let finals = 0;
  const fail = (message: string, last: string): SearchResult => ({
    states: seen.size,
    transitions,
    finals,
    violation: { message, moves: [...stack.slice(1).map(({ label }) => label), last] },
  });
  const enter = (world: World, key: number, label: string): void => {
    seen.set(key, UNFINISHED);
    stack.push({ world, key, moves: movesOf(world), next: 0, label });
  };
  const start = createWorld(scenario, rules);
  enter(start, hash(worldKey(start)), "");
  for (let frame = stack.at(-1); frame !== undefined; frame = stack.at(-1)) {
    const move = frame.moves[frame.next++];
    if (move === undefined) {
      if (frame.moves.length === 0) finals++;
      seen.set(frame.key, FINISHED);
      stack.pop();
      continue;
    }
    const isLast = frame.next === frame.moves.length;
    const world = isLast ? frame.world : cloneWorld(frame.world);
    try {
      move.apply(world);
      check(world);
    } catch (error) {
      if (error instanceof Violation) return fail(error.message, move.label);
      throw error;
    }
    transitions++;
    const key = hash(worldKey(world));
    const known = seen.get(key);
    if (known === UNFINISHED) return fail("a loop: the same state again", move.label);
    if (known !== undefined) continue;
    enter(world, key, move.label);
    if (isStuck(world, stack.at(-1)?.moves ?? [])) {
      return fail("stuck: jobs wait and nothing can happen", "the end");
    }
  }
  return { states: seen.size, transitions, finals, violation: null };
}

/**
 * 53 bits of the text, by the cyrb53 mixing function. Two of a million states fall together with a
 * chance of about 1 in 20,000, and would then only leave one of them unexplored.
 */
function hash(text: string): number {
  let a = 0xdeadbeef;
  let b = 0x41c6ce57;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    a = Math.imul(a ^ code, 2654435761);
    b = Math.imul(b ^ code, 1597334677);
  }
  a = Math.imul(a ^ (a >>> 16), 2246822507) ^ Math.imul(b ^ (b >>> 13), 3266489909);
  b = Math.imul(b ^ (b >>> 16), 2246822507) ^ Math.imul(a ^ (a >>> 13), 3266489909);
  return 4294967296 * (2097151 & b) + (a >>> 0);
}
