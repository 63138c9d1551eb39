import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { Folder, makeCall, merge } from "../../integration/adapter-merger/support.ts";
import { installEnvironments, INSTALL_MS, pythonOf } from "../support/environment.ts";

const SCRIPT = fileURLToPath(new URL("peft_check.py", import.meta.url));
const WEIGHTS: Readonly<Record<string, number>> = { a: 0.7, b: -0.4, c: 1.1 };
const METHODS = [
  "linear",
  "ties",
  "magnitude_prune",
  "cat",
  "svd",
  "ties_svd",
  "magnitude_prune_svd",
];

/** A Python with the real peft: the one that `CJM_ML_PYTHON` names, or the trainer's. */
async function python(): Promise<string> {
  const named = process.env["CJM_ML_PYTHON"];
  if (named !== undefined) return named;
  await installEnvironments();
  return pythonOf("qlora-trainer");
}

interface Loaded {
  readonly missing: readonly string[];
  readonly unexpected: readonly string[];
  readonly modules: number;
  readonly exact?: number;
  readonly like?: number;
}

describe("the real peft", () => {
  const folder = new Folder();
  let interpreter = "";

  const run = (...args: readonly string[]): string =>
    execFileSync(interpreter, [SCRIPT, ...args], {
      encoding: "utf8",
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, PYTHONWARNINGS: "ignore", HF_HUB_OFFLINE: "1" },
    });

  beforeAll(async () => {
    interpreter = await python();
    run("make", folder.path);
    return () => folder[Symbol.dispose]();
  }, INSTALL_MS);

  interface Wish {
    readonly names: readonly string[];
    readonly recipe: Readonly<Record<string, unknown>>;
    /** Peft's own merge that it must equal. */
    readonly like?: string;
  }

  /** Merges adapters that peft saved, and gives what peft says about the results. */
  async function loaded(wishes: readonly Wish[]): Promise<readonly Loaded[]> {
    const questions = [];
    for (const { names, recipe, like } of wishes) {
      const weightOf = (name: string): number => WEIGHTS[name.at(-1) ?? ""] ?? 1;
      const adapters = names.map((name) => ({ path: folder.in(name), weight: weightOf(name) }));
      const { adapter } = await merge({ adapters, ...recipe }, makeCall(folder));
      const kind = names[0]?.startsWith("gpt-") === true ? "gpt-" : "";
      questions.push(JSON.stringify({ path: adapter.data.path, kind, inputs: names, like }));
    }
    const answers = JSON.parse(run("check", folder.path, ...questions)) as Loaded[];
    expect(answers).toHaveLength(wishes.length);
    for (const answer of answers) expect(answer).toMatchObject({ missing: [], unexpected: [] });
    return answers;
  }

  test("loads merges of different ranks, alphas, patterns and rsLoRA, exact in every module", async () => {
    const all = ["a", "b", "c"];
    const answers = await loaded([
      { names: all, recipe: { method: "linear" } },
      { names: all, recipe: { method: "cat" } },
      { names: ["c"], recipe: { method: "linear" } },
      { names: ["gpt-a", "gpt-b"], recipe: { method: "linear" } },
    ]);
    expect(answers.map(({ modules }) => modules)).toEqual([6, 6, 6, 1]);
    for (const { exact } of answers) expect(exact).toBeLessThan(2e-6);
  }, 300_000);

  test("loads results whose modules have ranks of their own", async () => {
    const all = ["a", "b", "c"];
    const overrides = [{ modules: "conv", rank: 2 }];
    const [energy] = await loaded([
      { names: all, recipe: { method: "linear", energy: 0.95 } },
      { names: all, recipe: { method: "ties", overrides } },
    ]);
    expect(energy?.exact).toBeLessThan(Math.sqrt(0.05));
    expect(energy?.exact).toBeGreaterThan(0.01);
  }, 300_000);

  test("add_weighted_adapter gives what compat peft gives, for every method without chance", async () => {
    const wishes = METHODS.flatMap((method) => {
      const recipe = { method, compat: "peft", density: 0.5 };
      return [
        { names: ["a", "b"], recipe, like: `peft-/${method}` },
        { names: ["gpt-a", "gpt-b"], recipe, like: `peft-gpt-/${method}` },
      ];
    });
    const answers = await loaded(wishes);
    const far = answers.filter(({ like = NaN }) => !(like < 1e-5));
    expect(far).toEqual([]);
  }, 600_000);
});
