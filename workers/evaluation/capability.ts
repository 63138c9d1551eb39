import { type Call, defineAction, defineCapability, z } from "cjm-substrate/worker";
import { type Candidate, planAnswers, planChecks } from "./answers.ts";
import { compare } from "./compare.ts";
import { contenders, type EvolutionDecision, judge, planMerges } from "./evolution.ts";
import { refuse } from "./fault.ts";
import { fitness } from "./fitness.ts";
import { adapterQuality, generalizationDelta, killSwitch, round2Gate } from "./gates.ts";
import { OOD_TASKS } from "./ood-tasks.ts";
import { meanPassAtK } from "./pass-at-k.ts";
import * as schemas from "./schemas.ts";
import { score } from "./score.ts";

type CandidateInput = z.output<typeof schemas.planAnswersInput>["candidates"][number];

/** A record of the registry is asked with its files, held to their hash. */
function toCandidate({
  id,
  adapters,
  file_path: path,
  file_hash: sha256,
}: CandidateInput): Candidate {
  if (adapters !== undefined) return { id, adapters };
  if (path === undefined) return { id, adapters: [] };
  return { id, adapters: [sha256 === undefined ? { path } : { path, sha256 }] };
}

type RecordInput = z.output<typeof schemas.contendersInput>["records"][number];

/** Every record once: two merges may give the same bytes, and so the same adapter. */
function recordsOf(
  stored: z.output<typeof schemas.contendersInput>["merged"],
): readonly RecordInput[] {
  const records = stored.map((one) => schemas.recordOf(one));
  return [...new Map(records.map((record) => [record.id, record])).values()];
}

/** The journal gets every decision with its numbers. */
function tell(decisions: readonly EvolutionDecision[], call: Call): void {
  for (const decision of decisions) call.account("evolution_decision", { ...decision });
}

type Writable<Value> = Value extends object
  ? { -readonly [Key in keyof Value]: Writable<Value[Key]> }
  : Value;

/** What nobody here changes, for a signature that does not promise it. */
function writable<Value>(value: Value): Writable<Value> {
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- only `readonly` is taken away
  return value as Writable<Value>;
}

const asking = {
  plan_answers: defineAction({
    description: "Every question to every candidate, ready for a for_each of the generator.",
    input: schemas.planAnswersInput,
    output: schemas.planAnswersOutput,
    handler({ candidates, tasks, samples, seed }) {
      return { items: planAnswers(candidates.map(toCandidate), tasks, { samples, seed }) };
    },
  }),
  plan_checks: defineAction({
    description: "The programs that the answers are, ready for a for_each of check_cases.",
    input: schemas.planChecksInput,
    output: schemas.planChecksOutput,
    handler: ({ items, answers }) => ({ checks: planChecks(items, answers) }),
  }),
  score: defineAction({
    description: "Pass rates, pass@k, diversity and fitness of every candidate.",
    default: true,
    repeatable: true,
    input: schemas.scoreInput,
    output: schemas.scoreOutput,
    handler: ({ items, checks, k, peers }, call) => {
      const candidates = score(items, checks, { k, peers });
      for (const { id, samples, pass_rate, pass_at_k, diversity, fitness: fit } of candidates) {
        const numbers = { samples, pass_rate, pass_at_k, diversity, fitness: fit };
        call.account("candidate_scored", { candidate: id, ...numbers });
      }
      return writable({ candidates });
    },
  }),
  pair: defineAction({
    description: "Members of two lists at the same place, side by side.",
    input: schemas.pairInput,
    output: schemas.pairOutput,
    handler({ items, results }) {
      if (items.length !== results.length) {
        throw refuse(`${items.length} items and ${results.length} results`, ["results"]);
      }
      return { pairs: items.map((item, at) => ({ item, result: results[at] ?? null })) };
    },
  }),
  ood_tasks: defineAction({
    description: "Tasks unlike those that adapters are trained on here.",
    repeatable: true,
    input: z.strictObject({}),
    output: schemas.oodOutput,
    handler: () => ({ tasks: [...OOD_TASKS] }),
  }),
};

const judging = {
  pass_at_k: defineAction({
    description: "Unbiased pass@k, averaged over tasks.",
    input: schemas.passAtKInput,
    output: schemas.passAtKOutput,
    handler: ({ tasks, k }) =>
      writable({
        pass_at_k: k.map((one) => meanPassAtK(tasks, one)),
      }),
  }),
  fitness: defineAction({
    description: "0.7 times the pass rate and 0.3 times the diversity.",
    input: schemas.fitnessInput,
    output: schemas.fitnessOutput,
    handler: (input) => ({ fitness: fitness(input.pass_rate, input.diversity) }),
  }),
  compare: defineAction({
    description: "Two candidates on the same tasks, with an interval for the difference.",
    input: schemas.compareInput,
    output: schemas.compareOutput,
    handler: ({ a, b, confidence }) => writable(compare(a, b, confidence)),
  }),
  generalization: defineAction({
    description: "Whether what was learned carries over to other tasks.",
    input: schemas.generalizationInput,
    output: schemas.generalizationOutput,
    handler: (input) => ({
      delta: generalizationDelta(input.in_distribution, input.out_of_distribution),
    }),
  }),
  quality: defineAction({
    description: "The pass rate, corrected by how well it generalizes.",
    input: schemas.qualityInput,
    output: schemas.qualityOutput,
    handler: (input) => ({ quality: adapterQuality(input.pass_rate, input.delta) }),
  }),
  kill_switch: defineAction({
    description: "Whether an adapter beats its base by enough to be kept.",
    input: schemas.killSwitchInput,
    output: schemas.killSwitchOutput,
    handler: ({ base, adapter, threshold }) => killSwitch(base, adapter, threshold),
  }),
  round2_gate: defineAction({
    description: "Whether enough benchmarks improve and none gets much worse.",
    input: schemas.round2Input,
    output: schemas.round2Output,
    handler: ({ before, after, ...limits }) => writable(round2Gate(before, after, limits)),
  }),
};

const evolving = {
  plan_merges: defineAction({
    description: "The fittest adapters of each task that are to be merged, and how.",
    input: schemas.planMergesInput,
    output: schemas.planMergesOutput,
    handler({ records, min_active: minActive, top_k: topK, recipes }, call) {
      const plan = planMerges(records, { minActive, topK, recipes });
      tell(plan.decisions, call);
      return writable(plan);
    },
  }),
  contenders: defineAction({
    description: "Merged adapters and their parents, each once.",
    input: schemas.contendersInput,
    output: schemas.contendersOutput,
    handler: ({ merged, records }) => ({ candidates: contenders(recordsOf(merged), records) }),
  }),
  judge: defineAction({
    description: "Which merged adapter is promoted, and which adapters are pruned.",
    input: schemas.judgeInput,
    output: schemas.judgeOutput,
    handler({ merged, scores, population, prune_below: pruneBelow, confidence, certain }, call) {
      const rules = { pruneBelow, confidence, certain };
      const verdict = judge(recordsOf(merged), { scores, population }, rules);
      tell(verdict.decisions, call);
      return writable(verdict);
    },
  }),
};

/** What numbers mean and what follows from them: no state, no model, no jail. */
export const capability = defineCapability({
  name: "evaluation",
  version: "0.1.0",
  description: "Counts what models and adapters achieve, and says what follows from it.",
  config: z.strictObject({}),
  maxConcurrentRequests: 4,
  resources: {
    requires_gpu: false,
    platforms: ["linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64"],
    accelerators: [],
  },
  actions: { ...asking, ...judging, ...evolving },
});
