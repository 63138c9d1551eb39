import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { temporaryFolder } from "../../support/cli.ts";

const FACTORY = fileURLToPath(new URL("../../../examples/model-factory", import.meta.url));
const FILES = ["numbers.jsonl", "lists.jsonl", "held-out.jsonl"] as const;
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

const tasks = await lines("held-out.jsonl", taskSchema);
const rows = [
  ...(await lines("numbers.jsonl", rowSchema)),
  ...(await lines("lists.jsonl", rowSchema)),
];

describe("the tasks of the model factory", () => {
  test("share no eight tokens in a row with any training row", () => {
    const known = new Set(rows.flatMap((row) => windowsOf(row.prompt + row.completion)));
    const leaks = tasks.flatMap(({ id, solution }) =>
      windowsOf(solution).flatMap((window) => (known.has(window) ? [`${id}: ${window}`] : [])),
    );
    expect(tasks.length).toBeGreaterThanOrEqual(40);
    expect(leaks).toEqual([]);
  });

  test("have other names, other constants and other orders of operations", () => {
    const trained = rows.map(({ prompt }) => partsOf(prompt));
    const names = new Set(trained.map(({ name }) => name));
    const constants = new Set(trained.flatMap((parts) => parts.constants));
    const orders = new Set(trained.map(({ order }) => order));
    for (const { prompt } of tasks) {
      const parts = partsOf(prompt);
      expect(names).not.toContain(parts.name);
      expect(orders).not.toContain(parts.order);
      for (const constant of parts.constants) expect(constants).not.toContain(constant);
    }
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
