/**
 * Runs the whole factory from several seeds, the base too, and prints how the test tasks went:
 *
 *   node examples/model-factory/seeds.ts [--seeds 0,1,2] [what `cjm-ctl run` takes…]
 *
 * Ends with a code that is not 0 where the best merge, chosen by the validation tasks, is no better on
 * the test tasks than each adapter alone.
 */
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { z } from "cjm-substrate/worker";

const FAMILIES = ["numbers", "lists"] as const;

const scoreSchema = z.object({
  id: z.string(),
  pass_rate: z.number(),
  families: z.array(z.object({ family: z.string(), pass_rate: z.number() })),
});
type Score = z.output<typeof scoreSchema>;
const scores = z.object({ candidates: z.array(scoreSchema) });
const record = z.object({ record: z.object({ id: z.string(), method: z.string().nullable() }) });
const runSchema = z.object({
  results: z.object({
    scores,
    "test-scores": scores,
    "merge-records": z.array(record),
    promoted: z.array(record),
  }),
});

/** How one seed's candidates did on the test tasks. */
interface SeedResult {
  readonly seed: number;
  readonly base: Score;
  readonly adapters: readonly Score[];
  /** The merge that passes the most validation tasks. */
  readonly chosen: Score;
  readonly method: string;
  readonly isPromoted: boolean;
}

function runFactory(seed: number, args: readonly string[]): SeedResult {
  const words = [join(import.meta.dirname, "main.ts"), "--seed", String(seed), "--json", ...args];
  const stdout = execFileSync(process.execPath, words, {
    stdio: ["inherit", "pipe", "inherit"],
    maxBuffer: 256 * 1024 * 1024,
  });
  const { results } = runSchema.parse(JSON.parse(stdout.toString("utf8")));
  const [base, ...others] = results["test-scores"].candidates;
  const methods = new Map(
    results["merge-records"].map(({ record: one }) => [one.id, one.method ?? ""] as const),
  );
  const [best] = results.scores.candidates
    .filter(({ id }) => methods.has(id))
    .toSorted((a, b) => b.pass_rate - a.pass_rate);
  const chosen = others.find(({ id }) => id === best?.id);
  if (base === undefined || chosen === undefined) throw new TypeError("There is no merge");
  return {
    seed,
    base,
    adapters: others.filter(({ id }) => !methods.has(id)),
    chosen,
    method: methods.get(chosen.id) ?? "",
    isPromoted: results.promoted.some(({ record: one }) => one.id === chosen.id),
  };
}

function rateOf({ families, pass_rate: mean }: Score, family: string): number {
  return families.find((one) => one.family === family)?.pass_rate ?? mean;
}

const COLUMNS: readonly (readonly [string, (result: SeedResult) => number])[] = [
  ...FAMILIES.map(
    (family) => [`base ${family}`, (of: SeedResult) => rateOf(of.base, family)] as const,
  ),
  ...FAMILIES.map(
    (family, at) =>
      [`${family} on its own`, (of: SeedResult) => rateOf(adapterOf(of, at), family)] as const,
  ),
  ["numbers mean", (of) => adapterOf(of, 0).pass_rate],
  ["lists mean", (of) => adapterOf(of, 1).pass_rate],
  ["chosen merge mean", ({ chosen }) => chosen.pass_rate],
];

function adapterOf({ adapters }: SeedResult, at: number): Score {
  const adapter = adapters[at];
  if (adapter === undefined) throw new TypeError(`There is no adapter ${at}`);
  return adapter;
}

function isBetter(of: SeedResult): boolean {
  return of.adapters.every(({ pass_rate: alone }) => of.chosen.pass_rate > alone);
}

function line(head: string, cells: readonly string[]): string {
  return head.padEnd(20) + cells.map((cell) => cell.padStart(13)).join("");
}

function print(results: readonly SeedResult[]): void {
  console.log(
    line("pass@1, test tasks", [
      ...results.map(({ seed }) => `seed ${seed}`),
      "mean",
      "least",
      "most",
    ]),
  );
  for (const [name, pick] of COLUMNS) {
    const values = results.map(pick);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const cells = [...values, mean, Math.min(...values), Math.max(...values)];
    console.log(
      line(
        name,
        cells.map((value) => value.toFixed(2)),
      ),
    );
  }
  console.log(
    line(
      "chosen",
      results.map(({ method }) => method),
    ),
  );
  console.log(
    line(
      "promoted",
      results.map((of) => (of.isPromoted ? "yes" : "no")),
    ),
  );
  console.log(
    line(
      "beats both alone",
      results.map((of) => (isBetter(of) ? "yes" : "no")),
    ),
  );
}

const args = process.argv.slice(2);
const at = args.indexOf("--seeds");
const seeds = (at < 0 ? "0,1,2" : (args[at + 1] ?? "")).split(",").map(Number);
const rest = at < 0 ? args : args.toSpliced(at, 2);
const results = seeds.map((seed) => runFactory(seed, rest));
print(results);
if (!results.every(isBetter)) process.exitCode = 1;
