import { refuse } from "./fault.ts";
import type { Task } from "./schemas.ts";

/** Who is asked; `adapters` goes to the generator as it is. */
export interface Candidate {
  readonly id: string;
  readonly adapters: unknown[];
}

/** One question to one candidate, and what its answer is held to. */
export interface Item {
  readonly candidate: string;
  readonly adapters: unknown[];
  readonly task: string;
  readonly family: string;
  readonly sample: number;
  readonly seed: number;
  readonly prompt: string;
  readonly prefix: string;
  readonly function: string;
  readonly cases: Task["cases"];
  readonly language: Task["language"];
}

/** What the sandbox's `check_cases` is given. */
export type Check = Pick<Item, "function" | "cases" | "language"> & { readonly code: string };

/**
 * Every question that is to be asked, candidate by candidate. The seed of a sample is the same for
 * every candidate, and another one for every task.
 *
 * @throws {CjmError} for an id that is there twice, among the tasks or among the candidates.
 */
export function planAnswers(
  candidates: readonly Candidate[],
  tasks: readonly Task[],
  { samples, seed }: { readonly samples: number; readonly seed: number },
): Item[] {
  requireUnique(candidates, "candidates");
  requireUnique(tasks, "tasks");
  return candidates.flatMap((candidate) =>
    tasks.flatMap((task, at) =>
      Array.from({ length: samples }, (_, sample) => ({
        candidate: candidate.id,
        adapters: candidate.adapters,
        task: task.id,
        family: task.family,
        sample,
        seed: seed + at * samples + sample,
        prompt: task.prompt,
        prefix: task.prefix,
        function: task.function,
        cases: task.cases,
        language: task.language,
      })),
    ),
  );
}

/** The programs that the answers are, in the order of the items. */
export function planChecks(
  items: readonly Item[],
  answers: readonly (string | { readonly text: string })[],
): Check[] {
  if (items.length !== answers.length) {
    throw refuse(`${items.length} items and ${answers.length} answers`, ["items", "answers"]);
  }
  return items.map((item, index) => {
    const answer = answers[index] ?? "";
    const text = typeof answer === "string" ? answer : answer.text;
    const { function: name, cases, language } = item;
    return { code: programOf(text, item.prefix), function: name, cases, language };
  });
}

const FENCE = /^[ \t]*```[^\n]*\n(?<code>.*?)(?:^[ \t]*```|(?![^]))/msu;

/** The first fenced block of an answer, or all of it, behind what the task gives. */
function programOf(text: string, prefix: string): string {
  return prefix + (FENCE.exec(text)?.groups?.["code"] ?? text);
}

function requireUnique(list: readonly { readonly id: string }[], field: string): void {
  const ids = new Set<string>();
  for (const { id } of list) {
    if (ids.has(id)) throw refuse(`${field}: "${id}" is there twice`, [field]);
    ids.add(id);
  }
}
