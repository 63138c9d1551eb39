import { z } from "cjm-substrate/worker";

const share = z.number().min(0).max(1);
const count = z.int().nonnegative();
const id = z.string().min(1).max(200);
const MAX_ITEMS = 10_000;

const caseSchema = z.strictObject({
  name: z.string().optional(),
  args: z.array(z.json()).default([]),
  kwargs: z.record(z.string(), z.json()).default({}),
  expected: z.json().describe("Never shown to who answers."),
});

export const taskSchema = z.strictObject({
  id,
  family: z.string().default("").describe("Kind of task; scores are also given by family."),
  prompt: z.string(),
  prefix: z.string().default("").describe("Put before the answer to make the program."),
  function: z.string().min(1).describe("Function of the program that the cases call."),
  cases: z.array(caseSchema).min(1).max(1_000),
  language: z.enum(["python", "node", "javascript"]).default("python"),
  solution: z.string().optional().describe("A program that passes; for tests, never used here."),
});
export type Task = z.output<typeof taskSchema>;

const adapters = z
  .array(z.unknown())
  .describe("As the generator takes them; [] is the base model.");
const candidateSchema = z.looseObject({
  id,
  adapters: adapters.optional(),
  file_path: z.string().optional().describe("Of a record; with file_hash instead of `adapters`."),
  file_hash: z.string().optional(),
});

const itemSchema = z.object({
  candidate: id,
  adapters,
  task: id,
  family: z.string(),
  sample: count,
  seed: count,
  prompt: z.string(),
  prefix: z.string(),
  function: z.string(),
  cases: taskSchema.shape.cases,
  language: taskSchema.shape.language,
});
const items = z.array(itemSchema).max(MAX_ITEMS);

export const planAnswersInput = z.strictObject({
  candidates: z.array(candidateSchema),
  tasks: z.array(taskSchema),
  samples: z.int().positive().max(1_000).default(1).describe("Answers to each task."),
  seed: z.int().nonnegative().max(0x7fff_ffff).default(0),
});
export const planAnswersOutput = z.object({ items });

export const planChecksInput = z.strictObject({
  items,
  answers: z.array(z.union([z.string(), z.looseObject({ text: z.string() })])),
});
export const planChecksOutput = z.object({
  checks: z.array(
    z.object({
      code: z.string(),
      function: z.string(),
      cases: taskSchema.shape.cases,
      language: taskSchema.shape.language,
    }),
  ),
});

const tally = z.object({ task: id, n: count, c: count });
const tallies = z.array(tally);
const ks = z.array(z.int().positive()).min(1).default([1]);
const passAtK = z.array(
  z.object({
    k: z.int(),
    value: share.nullable().describe("Null where it cannot be estimated."),
    too_few: z.array(z.string()).describe("Tasks with fewer than k answers."),
  }),
);

export const scoreInput = z.strictObject({
  items,
  checks: z.array(z.looseObject({ all_passed: z.boolean() })).describe("Of check_cases, in order."),
  k: ks,
  peers: z
    .array(z.looseObject({ id, tasks: tallies }))
    .default([])
    .describe(
      "Others that diversity is measured against, as the registry's `evaluations` has them.",
    ),
});
const candidateScore = z.object({
  id,
  samples: count,
  pass_rate: share,
  pass_at_k: passAtK,
  families: z.array(
    z.object({ family: z.string(), tasks: count, pass_rate: share, pass_at_k: passAtK }),
  ),
  diversity: share,
  fitness: share,
  tasks: z.array(tally.extend({ family: z.string() })),
});
export const scoreOutput = z.object({ candidates: z.array(candidateScore) });

export const passAtKInput = z.strictObject({ tasks: tallies, k: ks });
export const passAtKOutput = z.object({ pass_at_k: passAtK });

export const fitnessInput = z.strictObject({ pass_rate: share, diversity: share });
export const fitnessOutput = z.object({ fitness: share });

const confidence = z.number().gt(0).lt(1).default(0.95);
export const compareInput = z.strictObject({ a: tallies, b: tallies, confidence });
export const compareOutput = z.object({
  difference: z.number().describe("Mean pass rate of b minus that of a."),
  interval: z.array(z.number()).length(2),
  tasks: count,
  wins: count.describe("Tasks at which b is better."),
  losses: count,
  ties: count,
  verdict: z.enum(["better", "worse", "undecided"]),
});

export const generalizationInput = z.strictObject({
  in_distribution: share,
  out_of_distribution: share,
});
export const generalizationOutput = z.object({
  delta: z.number().describe("Out minus in; negative: what was learned does not carry over."),
});
export const qualityInput = z.strictObject({
  pass_rate: share,
  delta: z.number().min(-1).max(1).nullable().default(null),
});
export const qualityOutput = z.object({ quality: share });

export const killSwitchInput = z.strictObject({
  base: share,
  adapter: share,
  threshold: z.number().nonnegative().default(0.05).describe("Share of the base's score."),
});
export const killSwitchOutput = z.object({
  pass: z.boolean(),
  delta: z.number(),
  relative_delta: z.number().nullable().describe("Null where the base scores 0."),
});

const benchmarks = z.record(z.string(), share);
export const round2Input = z.strictObject({
  before: benchmarks,
  after: benchmarks,
  improved: z.int().nonnegative().default(4).describe("Benchmarks that must improve."),
  gain: share.default(0.02).describe("What counts as an improvement, absolute."),
  regression: share.default(0.01).describe("Largest loss of any benchmark, absolute."),
});
export const round2Output = z.object({
  pass: z.boolean(),
  improved: count,
  max_regression: z.number(),
  benchmarks: z.array(z.object({ benchmark: z.string(), delta: z.number() })),
});

export const pairInput = z.strictObject({ items: z.array(z.json()), results: z.array(z.json()) });
export const pairOutput = z.object({
  pairs: z.array(z.object({ item: z.json(), result: z.json() })),
});

export const oodOutput = z.object({ tasks: z.array(taskSchema) });

const record = z.looseObject({
  id,
  task_type: z.string(),
  base_model_id: z.string(),
  file_path: z.string(),
  fitness_score: share.nullable(),
  is_archived: z.boolean(),
  parent_ids: z.array(z.string()),
  method: z.string().nullable(),
});
const records = z.array(record);
/** Records, or what the registry's `store` answers. */
const stored = z.array(z.union([z.looseObject({ record }), record]));
export function recordOf(one: z.output<typeof stored>[number]): z.output<typeof record> {
  return record.parse("record" in one ? one.record : one);
}
const decisions = z.array(
  z.object({
    decision: z.enum(["merge", "no_merge", "promote", "keep", "prune"]),
    subject: z.string().describe("An adapter, or the task type that a merge is about."),
    reason: z.string(),
    evidence: z.record(z.string(), z.unknown()),
  }),
);
const recipe = z.strictObject({
  method: z.string(),
  density: share.default(0.5),
  seed: count.default(0),
});
export const planMergesInput = z.strictObject({
  records: records.describe("Every record there is, archived ones too."),
  min_active: z.int().positive().default(5),
  top_k: z.int().min(2).default(3),
  recipes: z
    .array(recipe)
    .min(1)
    .default([
      { method: "ties", density: 0.5, seed: 0 },
      { method: "dare_ties", density: 0.5, seed: 0 },
    ]),
});
export const planMergesOutput = z.object({
  merges: z.array(
    recipe.extend({
      task_type: z.string(),
      parent_ids: z.array(z.string()),
      adapters: z.array(z.object({ path: z.string() })),
    }),
  ),
  decisions,
});
export const contendersInput = z.strictObject({ merged: stored, records });
export const contendersOutput = z.object({ candidates: records });

export const judgeInput = z.strictObject({
  merged: stored,
  scores: z.array(z.looseObject({ id, pass_rate: share, tasks: tallies })).describe("Held out."),
  population: records.describe("Whom to prune among."),
  prune_below: share.default(0.3),
  confidence,
  certain: z
    .boolean()
    .default(false)
    .describe("Promote only where the whole interval of the difference is above 0."),
});
const verdict = { id, reason: z.string(), evidence: z.record(z.string(), z.unknown()) };
export const judgeOutput = z.object({
  promote: z.array(z.object({ ...verdict, domain: z.string() })),
  archive: z.array(z.object(verdict)),
  decisions,
});
