import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { temporaryFolder } from "../../support/cli.ts";

const FACTORY = fileURLToPath(new URL("../../../examples/model-factory", import.meta.url));
const HELD_OUT = ["validation.jsonl", "test.jsonl"] as const;
const FILES = ["numbers.jsonl", "lists.jsonl", "practice.jsonl", ...HELD_OUT] as const;
const WINDOW = 8;

const rowSchema = z.object({ prompt: z.string(), completion: z.string() });
const taskSchema = z.object({
  id: z.string(),
  family: z.enum(["numbers", "lists"]),
  prompt: z.string(),
  solution: z.string(),
});

async function lines<Schema extends z.ZodType>(
  name: (typeof FILES)[number],
  schema: Schema,
): Promise<readonly z.output<Schema>[]> {
  const text = await readFile(join(FACTORY, "tasks", name), "utf8");
  return text
    .trim()
    .split("\n")
    .map((line) => schema.parse(JSON.parse(line)));
}

/** Python's tokens: names, numbers, operators, brackets, and a line's end with its indentation. */
function tokensOf(program: string): readonly string[] {
  return program.match(/\n *|\w+|\/\/|[^\w\s]/gu) ?? [];
}

function windowsOf(program: string): readonly string[] {
  const tokens = tokensOf(program);
  const starts = Array.from({ length: Math.max(1, tokens.length - WINDOW + 1) }, (_, at) => at);
  return starts.map((start) => JSON.stringify(tokens.slice(start, start + WINDOW)));
}

/** The words, constants and name of a prompt such as `# total: wrap 7, flip 40`. */
function partsOf(prompt: string): { name: string; order: string; constants: readonly string[] } {
  const [, name = "", told = ""] = /^# (\w+): (.*)$/mu.exec(prompt) ?? [];
  const steps = told.split(", ").map((step) => step.split(" "));
  return {
    name,
    order: steps.map(([word]) => word).join(" "),
    constants: steps.map(([, constant = ""]) => constant),
  };
}

const [validation, tested] = await Promise.all(HELD_OUT.map((file) => lines(file, taskSchema)));
const practice = await lines("practice.jsonl", taskSchema);
const rows = [
  ...(await lines("numbers.jsonl", rowSchema)),
  ...(await lines("lists.jsonl", rowSchema)),
];
const programs = rows.map(({ prompt, completion }) => prompt + completion);

interface Known {
  readonly windows: ReadonlySet<string>;
  readonly names: ReadonlySet<string>;
  readonly constants: ReadonlySet<string>;
  readonly orders: ReadonlySet<string>;
}

function known(of: readonly string[], prompts: readonly string[]): Known {
  const parts = prompts.map(partsOf);
  return {
    windows: new Set(of.flatMap(windowsOf)),
    names: new Set(parts.map(({ name }) => name)),
    constants: new Set(parts.flatMap(({ constants }) => constants)),
    orders: new Set(parts.map(({ order }) => order)),
  };
}

const trained = known(
  programs,
  rows.map(({ prompt }) => prompt),
);
const chosenBy = known(
  (validation ?? []).map(({ solution }) => solution),
  (validation ?? []).map(({ prompt }) => prompt),
);

describe.each([
  ["validation tasks and training rows", validation ?? [], trained],
  ["test tasks and training rows", tested ?? [], trained],
])("%s", (_, tasks, { windows, names, constants, orders }) => {
  test("share no eight tokens in a row", () => {
    expect(tasks.length).toBeGreaterThanOrEqual(40);
    const leaks = tasks.flatMap(({ id, solution }) =>
      windowsOf(solution).flatMap((window) => (windows.has(window) ? [`${id}: ${window}`] : [])),
    );
    expect(leaks).toEqual([]);
  });

  test("share no name, no constant and no order of operations", () => {
    for (const { prompt } of tasks) {
      const parts = partsOf(prompt);
      expect(names).not.toContain(parts.name);
      expect(orders).not.toContain(parts.order);
      for (const constant of parts.constants) expect(constants).not.toContain(constant);
    }
  });
});

describe("the tasks of the model factory", () => {
  test("are other ones to choose by than to test with", () => {
    for (const { family, prompt, solution } of tested ?? []) {
      const own = (validation ?? []).filter((task) => task.family === family);
      const { names, orders, constants } = known(
        [],
        own.map((task) => task.prompt),
      );
      const parts = partsOf(prompt);
      expect(names).not.toContain(parts.name);
      expect(orders).not.toContain(parts.order);
      for (const constant of parts.constants) expect(constants).not.toContain(constant);
      for (const window of windowsOf(solution)) expect(chosenBy.windows).not.toContain(window);
    }
  });

  test("to practise on are no training rows", () => {
    const prompts = new Set(rows.map(({ prompt }) => prompt));
    expect(practice.filter(({ prompt }) => prompts.has(prompt))).toEqual([]);
  });

  test("are what the generator writes, and their solutions pass", async () => {
    await using folder = await temporaryFolder();
    await execa("python3", ["-B", join(FACTORY, "make_tasks.py"), folder.path]);
    for (const name of FILES) {
      const made = await readFile(join(folder.path, name), "utf8");
      expect(made).toBe(await readFile(join(FACTORY, "tasks", name), "utf8"));
    }
  });
});
