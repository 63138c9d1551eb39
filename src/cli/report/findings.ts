import { readFile, stat } from "node:fs/promises";
import { z } from "zod";
import { fileRefSchema } from "../../protocol/index.ts";
import type { JournalEvent } from "../../store/index.ts";
import { isRecord } from "../../util/record.ts";

const MAX_METRICS_BYTES = 32 * 1024 * 1024;
const MAX_POINTS = 600;
const MAX_DEPTH = 8;

export interface LossPoint {
  readonly step: number;
  readonly loss: number;
}

/** The losses of one training. */
export interface Losses {
  readonly node: string;
  readonly training: readonly LossPoint[];
  readonly evaluation: readonly LossPoint[];
}

const passAtK = z.array(z.object({ k: z.number(), value: z.number().nullable() }));
const evaluationSchema = z.object({
  candidates: z
    .array(
      z.object({
        id: z.string(),
        pass_rate: z.number(),
        pass_at_k: passAtK,
        families: z
          .array(z.object({ family: z.string(), pass_rate: z.number(), tasks: z.number() }))
          .default([]),
        fitness: z.number().nullable().default(null),
        diversity: z.number().nullable().default(null),
        samples: z.number().nullable().default(null),
      }),
    )
    .min(1),
});
/** What candidates achieved, as `evaluation.score` gives it. */
export type Evaluation = z.output<typeof evaluationSchema> & { readonly node: string };
export type Candidate = Evaluation["candidates"][number];

type Results = Readonly<Record<string, unknown>>;

/** Every result of a node that says how candidates did. */
export function findEvaluations(results: Results): Evaluation[] {
  return Object.entries(results).flatMap(([node, result]) => {
    const parsed = evaluationSchema.safeParse(result);
    return parsed.success ? [{ node, ...parsed.data }] : [];
  });
}

const stepSchema = z.object({
  step: z.number(),
  loss: z.number().nullish(),
  eval_loss: z.number().nullish(),
});

/**
 * The losses of every training: line by line from the `metrics` file that it returned, or, where there
 * is none yet, what it accounted for while it ran.
 */
export async function findLosses(
  results: Results,
  journal: readonly JournalEvent[],
): Promise<Losses[]> {
  const found: Losses[] = [];
  for (const [node, result] of Object.entries(results)) {
    const files = metricsFiles(result);
    for (const [index, path] of files.entries()) {
      const steps = await readSteps(path);
      const name = files.length === 1 ? node : `${node} #${index + 1}`;
      if (steps.length > 0) found.push(lossesOf(name, steps));
    }
  }
  const known = new Set(found.map(({ node }) => node.split(" ")[0]));
  for (const [node, rows] of Map.groupBy(journal, ({ nodeId }) => nodeId ?? "")) {
    const steps = rows.flatMap(({ eventType, payload }) => {
      const step = stepSchema.safeParse(payload);
      return eventType === "training_evaluated" && step.success ? [step.data] : [];
    });
    if (steps.length > 0 && !known.has(node)) found.push(lossesOf(node, steps));
  }
  return found;
}

/** Paths of the metrics files that a result refers to, however deep. */
function metricsFiles(value: unknown, depth = 0): string[] {
  if (depth > MAX_DEPTH) return [];
  if (Array.isArray(value)) return value.flatMap((one) => metricsFiles(one, depth + 1));
  if (!isRecord(value)) return [];
  return Object.entries(value).flatMap(([key, member]) => {
    const file = key === "metrics" ? fileRefSchema.safeParse(member) : undefined;
    return file?.success === true ? [file.data.data.path] : metricsFiles(member, depth + 1);
  });
}

/** A file that is gone or is something else has no steps: a report shows what there is. */
async function readSteps(path: string): Promise<z.output<typeof stepSchema>[]> {
  const size = (await stat(path).catch(() => undefined))?.size ?? Infinity;
  if (size > MAX_METRICS_BYTES) return [];
  const lines = (await readFile(path, "utf8")).split("\n");
  return lines.flatMap((line) => {
    const step = stepSchema.safeParse(parsed(line));
    return step.success ? [step.data] : [];
  });
}

function parsed(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function lossesOf(node: string, steps: readonly z.output<typeof stepSchema>[]): Losses {
  const points = (pick: (step: z.output<typeof stepSchema>) => number | null | undefined) =>
    thinned(
      steps.flatMap((step) => {
        const loss = pick(step);
        return typeof loss === "number" ? [{ step: step.step, loss }] : [];
      }),
    );
  return { node, training: points(({ loss }) => loss), evaluation: points((s) => s.eval_loss) };
}

/** As many points as a chart can show, the last one always. */
function thinned(points: readonly LossPoint[]): LossPoint[] {
  const stride = Math.ceil(points.length / MAX_POINTS);
  return points.filter((_, at) => at % stride === 0 || at === points.length - 1);
}
