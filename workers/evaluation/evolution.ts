import { compare, type Comparison } from "./compare.ts";
import { refuse } from "./fault.ts";
import type { Tally } from "./pass-at-k.ts";

/** What evolution reads of a record of the registry. */
export interface AdapterLike {
  readonly id: string;
  readonly task_type: string;
  readonly base_model_id: string;
  readonly file_path: string;
  readonly fitness_score: number | null;
  readonly is_archived: boolean;
  readonly parent_ids: readonly string[];
  readonly method: string | null;
}

/** One way to merge the same parents. */
export interface Recipe {
  readonly method: string;
  readonly density: number;
  readonly seed: number;
}

/** A merge that is to be done; `adapters` is what the merger takes. */
export interface PlannedMerge extends Recipe {
  readonly task_type: string;
  readonly parent_ids: readonly string[];
  readonly adapters: readonly { readonly path: string }[];
}

/** One decision and the numbers it was made by; every one of them goes to the journal. */
export interface EvolutionDecision {
  readonly decision: "merge" | "no_merge" | "promote" | "keep" | "prune";
  /** An adapter, or the task type that a merge is about. */
  readonly subject: string;
  readonly reason: string;
  readonly evidence: Readonly<Record<string, unknown>>;
}

export interface MergeRules {
  /** Active adapters a task must have. */
  readonly minActive: number;
  readonly topK: number;
  readonly recipes: readonly Recipe[];
}

const MIN_PARENTS = 2;

/**
 * What to merge: for each task with enough active adapters its fittest ones, once for each recipe,
 * unless the same parents were merged by the same method before.
 *
 * @param records every record there is: archived ones count among the merges that were done.
 */
export function planMerges(
  records: readonly AdapterLike[],
  rules: MergeRules,
): { readonly merges: PlannedMerge[]; readonly decisions: EvolutionDecision[] } {
  const merges: PlannedMerge[] = [];
  const decisions: EvolutionDecision[] = [];
  const done = new Set(records.map(({ parent_ids: ids, method }) => mergeKey(ids, method ?? "")));
  for (const [taskType, own] of Map.groupBy(records, (record) => record.task_type)) {
    const choice = chooseParents(taskType, own, rules);
    if (choice.parents === undefined) {
      decisions.push(choice.decision);
      continue;
    }
    const ids = choice.parents.map(({ id }) => id);
    for (const recipe of rules.recipes) {
      const evidence = { ...choice.decision.evidence, method: recipe.method };
      if (done.has(mergeKey(ids, recipe.method))) {
        const reason = "the same parents were merged by the same method before";
        decisions.push({ decision: "no_merge", subject: taskType, reason, evidence });
        continue;
      }
      const adapters = choice.parents.map(({ file_path: path }) => ({ path }));
      merges.push({ ...recipe, task_type: taskType, parent_ids: ids, adapters });
      decisions.push({ ...choice.decision, evidence });
    }
  }
  return { merges, decisions };
}

type Choice =
  | { readonly parents: undefined; readonly decision: EvolutionDecision }
  | { readonly parents: readonly AdapterLike[]; readonly decision: EvolutionDecision };

function chooseParents(
  taskType: string,
  records: readonly AdapterLike[],
  { minActive, topK }: MergeRules,
): Choice {
  const active = records.filter((record) => !record.is_archived);
  const evidence = { active: active.length, min_active: minActive };
  const no = (reason: string, more: object = {}): Choice => {
    const decision = { decision: "no_merge", subject: taskType, reason } as const;
    return { parents: undefined, decision: { ...decision, evidence: { ...evidence, ...more } } };
  };
  if (active.length < minActive) return no("too few active adapters");
  const fit = active
    .filter((record) => record.fitness_score !== null)
    .toSorted((a, b) => (b.fitness_score ?? 0) - (a.fitness_score ?? 0));
  const [fittest] = fit;
  // Only adapters of one base can be merged: those that share it with the fittest.
  const parents = fit.filter((one) => one.base_model_id === fittest?.base_model_id).slice(0, topK);
  const chosen = parents.map(({ id, fitness_score: fitness }) => ({ id, fitness }));
  if (parents.length < MIN_PARENTS) return no("too few evaluated adapters of one base", { chosen });
  const reason = `the ${parents.length} fittest of ${active.length}`;
  return {
    parents,
    decision: { decision: "merge", subject: taskType, reason, evidence: { ...evidence, chosen } },
  };
}

function mergeKey(parents: readonly string[], method: string): string {
  return JSON.stringify([method, ...parents.toSorted()]);
}

/** Merged adapters and their parents, each once: who answers the held-out tasks. */
export function contenders<Record extends AdapterLike>(
  merged: readonly Record[],
  records: readonly Record[],
): Record[] {
  const wanted = new Set(merged.flatMap(({ id, parent_ids: parents }) => [id, ...parents]));
  const byId = new Map([...records, ...merged].map((record) => [record.id, record]));
  return [...wanted].map((id) => {
    const record = byId.get(id);
    if (record === undefined) throw refuse(`There is no record of "${id}"`, ["records"]);
    return record;
  });
}

/** What an adapter did on the held-out tasks. */
export interface HeldOutScore {
  readonly id: string;
  readonly pass_rate: number;
  readonly tasks: readonly Tally[];
}

export interface JudgeRules {
  /** Strictly below this fitness an adapter is archived. */
  readonly pruneBelow: number;
  readonly confidence: number;
  /** Promote only where the whole interval of the difference is above 0. */
  readonly certain: boolean;
}

export interface Verdict {
  readonly promote: {
    readonly id: string;
    readonly domain: string;
    readonly reason: string;
    readonly evidence: EvolutionDecision["evidence"];
  }[];
  readonly archive: {
    readonly id: string;
    readonly reason: string;
    readonly evidence: EvolutionDecision["evidence"];
  }[];
  readonly decisions: EvolutionDecision[];
}

/**
 * Which merged adapter is promoted and which adapters are pruned.
 *
 * For each task the best merged adapter is compared with its best parent on the same held-out tasks,
 * and promoted if it passes more of them.
 */
export function judge(
  merged: readonly AdapterLike[],
  {
    scores,
    population,
  }: {
    readonly scores: readonly HeldOutScore[];
    readonly population: readonly AdapterLike[];
  },
  rules: JudgeRules,
): Verdict {
  const verdict: Verdict = { promote: [], archive: [], decisions: [] };
  const byId = new Map(scores.map((one) => [one.id, one]));
  for (const [taskType, own] of Map.groupBy(merged, (record) => record.task_type)) {
    const ranked = own
      .map((record) => ({ record, score: requireScore(byId, record.id) }))
      .toSorted((a, b) => b.score.pass_rate - a.score.pass_rate);
    for (const [place, { record, score }] of ranked.entries()) {
      const contest = contestOf(record, score, { byId, confidence: rules.confidence });
      const decision =
        place === 0 ? promotion(record, contest, rules) : keep(record, contest, ranked);
      verdict.decisions.push(decision);
      if (decision.decision !== "promote") continue;
      const { reason, evidence } = decision;
      verdict.promote.push({ id: record.id, domain: taskType, reason, evidence });
    }
  }
  for (const decision of pruned(population, rules.pruneBelow)) {
    const { subject: id, reason, evidence } = decision;
    verdict.archive.push({ id, reason, evidence });
    verdict.decisions.push(decision);
  }
  return verdict;
}

interface Contest extends Comparison {
  readonly method: string | null;
  readonly pass_rate: number;
  readonly best_parent: { readonly id: string; readonly pass_rate: number };
}

function contestOf(
  record: AdapterLike,
  score: HeldOutScore,
  held: { readonly byId: ReadonlyMap<string, HeldOutScore>; readonly confidence: number },
): Contest {
  const parents = record.parent_ids
    .map((id) => requireScore(held.byId, id))
    .toSorted((a, b) => b.pass_rate - a.pass_rate);
  const [parent] = parents;
  if (parent === undefined) throw refuse(`"${record.id}" has no parents`, ["merged"]);
  return {
    method: record.method,
    pass_rate: score.pass_rate,
    best_parent: { id: parent.id, pass_rate: parent.pass_rate },
    ...compare(parent.tasks, score.tasks, held.confidence),
  };
}

function promotion(
  { id }: AdapterLike,
  contest: Contest,
  { certain }: JudgeRules,
): EvolutionDecision {
  const isBetter = contest.difference > 0 && (!certain || contest.verdict === "better");
  const { id: parent } = contest.best_parent;
  const reason = isBetter
    ? `passes more held-out tasks than its best parent ${parent}`
    : `passes no more held-out tasks than its best parent ${parent}`;
  return { decision: isBetter ? "promote" : "keep", subject: id, reason, evidence: { ...contest } };
}

function keep(
  { id }: AdapterLike,
  contest: Contest,
  [first]: readonly { readonly record: AdapterLike }[],
): EvolutionDecision {
  const reason = `another merge of the same task passes as many or more: ${first?.record.id}`;
  return { decision: "keep", subject: id, reason, evidence: { ...contest } };
}

function pruned(population: readonly AdapterLike[], below: number): EvolutionDecision[] {
  return population
    .filter(({ is_archived, fitness_score: f }) => !is_archived && f !== null && f < below)
    .map(({ id, fitness_score: fitness }) => ({
      decision: "prune",
      subject: id,
      reason: `its fitness is below ${below}`,
      evidence: { fitness, prune_below: below },
    }));
}

function requireScore(scores: ReadonlyMap<string, HeldOutScore>, id: string): HeldOutScore {
  const score = scores.get(id);
  if (score === undefined) throw refuse(`There is no held-out score of "${id}"`, ["scores"]);
  return score;
}
