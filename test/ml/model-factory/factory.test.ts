import { appendFile, copyFile, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import { runCli, startCli, temporaryFolder } from "../../support/cli.ts";
import { dataDir, INSTALL_MS } from "../support/environment.ts";
import { FACTORY, prepareFactory, someTasks } from "../support/factory.ts";

const COMPOSITION = join(FACTORY, "composition.yaml");
const CONTROL = "test/fixtures/model-factory/control.yaml";
/** What the settings take from inputs, for the tiny base. */
const TINY = { learning_rate: 0.003, max_steps: 160, seed: 0 };
/** Half of them to choose by, half of them to test with, and half of each of either family. */
const TASKS = 40;
const RUN_MS = 280_000;

const scoreSchema = z.object({
  id: z.string(),
  pass_rate: z.number(),
  families: z.array(z.object({ family: z.string(), pass_rate: z.number() })),
});
type Score = z.output<typeof scoreSchema>;
const trainedSchema = z.object({ weights_sha256: z.string() });
const doneSchema = z.object({
  id: z.string(),
  status: z.string(),
  nodes: z.array(z.object({ id: z.string(), state: z.string(), job_id: z.string().nullable() })),
  results: z.object({
    numbers: trainedSchema,
    lists: trainedSchema,
    scores: z.object({ candidates: z.array(scoreSchema) }),
    "test-scores": z.object({ candidates: z.array(scoreSchema) }),
    promoted: z.array(z.object({ record: z.object({ id: z.string(), level: z.string() }) })),
    table: z.object({ stdout: z.string() }),
  }),
});
type Done = z.output<typeof doneSchema>;
const controlSchema = z.object({
  results: z.object({ scores: z.object({ candidates: z.array(scoreSchema) }) }),
});
const rowSchema = z.object({
  event_type: z.string(),
  job_id: z.string().nullable(),
  capability_instance_id: z.string().nullable(),
});
const factorySchema = z.object({
  nodes: z.object({ numbers: z.object({ kwargs: z.object({ settings: z.looseObject({}) }) }) }),
});

let model = "";

let tasks: Readonly<Record<"validation" | "test", string>>;

beforeAll(async () => {
  model = await prepareFactory();
  tasks = {
    validation: await someTasks("validation", TASKS / 4),
    test: await someTasks("test", TASKS / 4),
  };
}, INSTALL_MS);

function inputs(lists = join(FACTORY, "tasks/lists.jsonl")): readonly string[] {
  const values = { model, lists, samples: 1, learning_rate: 0.003, ...tasks };
  return Object.entries(values).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
}

async function factory(lists?: string): Promise<Done> {
  const run = await runCli(["run", COMPOSITION, "--json", ...inputs(lists)], { dataDir });
  expect(run.exitCode, run.stderr).toBe(0);
  return doneSchema.parse(JSON.parse(run.stdout));
}

/** Jobs of an instance that were really run, over the life of the data directory. */
async function jobsOf(instance: string): Promise<number> {
  const logs = await runCli(["logs", "--journal", "--json", "-n", "0"], { dataDir });
  return logs.stdout
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => rowSchema.parse(JSON.parse(line)))
    .filter((row) => row.event_type === "job_submitted" && row.capability_instance_id === instance)
    .length;
}

const meanOf = (score: Score | undefined): number => score?.pass_rate ?? Number.NaN;
const rateOf = (score: Score | undefined, family: string): number =>
  score?.families.find((one) => one.family === family)?.pass_rate ?? Number.NaN;

let first: Done;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
/** A data set in a folder of its own. */
let copied = "";
beforeAll(async () => {
  folder = await temporaryFolder();
  copied = join(folder.path, "lists.jsonl");
});
afterAll(async () => {
  await folder[Symbol.asyncDispose]();
});

describe("the model factory", () => {
  test(
    "goes on after SIGKILL without training again, and the best merge beats its parents",
    async () => {
      const before = await Promise.all(["numbers-trainer", "lists-trainer"].map(jobsOf));
      const host = startCli(["run", COMPOSITION, "--force", ...inputs()], { dataDir });
      await printed(host.stdout, "merge-records 3/3  completed");
      host.kill("SIGKILL");
      await host;
      const resumed = await runCli(["resume", "--json"], { dataDir });
      expect(resumed.exitCode, resumed.stderr).toBe(0);
      first = doneSchema.parse(JSON.parse(resumed.stdout));
      const after = await Promise.all(["numbers-trainer", "lists-trainer"].map(jobsOf));
      expect(after).toEqual(before.map((count) => count + 1));
      expect(first.nodes.every(({ state }) => state === "completed")).toBe(true);

      const [base, numbers, lists, ...merges] = first.results["test-scores"].candidates;
      expect(meanOf(base)).toBeLessThanOrEqual(0.05);
      expect(rateOf(numbers, "numbers")).toBeGreaterThanOrEqual(0.5);
      expect(rateOf(lists, "lists")).toBeGreaterThanOrEqual(0.5);
      // What the other tasks chose is the better one on these, too.
      const [promoted] = first.results.promoted;
      expect(promoted?.record.level).toBe("domain");
      const chosen = merges.find(({ id }) => id === promoted?.record.id);
      expect(meanOf(chosen)).toBeGreaterThan(Math.max(meanOf(numbers), meanOf(lists)));
      expect(first.results.table.stdout).toMatch(/^base +0\.\d\d +0\.\d\d/mu);
      expect(first.results.table.stdout).toMatch(/of both .* promoted$/mu);
    },
    RUN_MS,
  );

  test(
    "answers an unchanged run from the cache, and knows a data set by its content",
    async () => {
      await copyFile(join(FACTORY, "tasks/lists.jsonl"), copied);
      const instances = ["numbers-trainer", "lists-trainer", "writer"];
      const before = await Promise.all(instances.map(jobsOf));
      const second = await factory(copied);
      expect(await Promise.all(instances.map(jobsOf))).toEqual(before);
      expect(second.results.table.stdout).toBe(first.results.table.stdout);
    },
    RUN_MS,
  );

  test(
    "trains and asks again only what depends on a data set that was changed in place",
    async () => {
      // A row more, another one each time: what an earlier test run has cached is no help.
      await appendFile(copied, JSON.stringify({ text: `# ${Date.now()}` }) + "\n");
      const instances = ["numbers-trainer", "lists-trainer", "writer"];
      const before = await Promise.all(instances.map(jobsOf));
      const changed = await factory(copied);
      const [numbers = 0, own = 0, asked = 0] = await Promise.all(instances.map(jobsOf));
      // The base and the adapter for numbers need not be asked again; four others are.
      expect([numbers, own, asked]).toEqual([
        before[0],
        (before[1] ?? 0) + 1,
        (before[2] ?? 0) + 4 * TASKS,
      ]);
      expect(changed.results.numbers).toEqual(first.results.numbers);
      expect(changed.results.lists).not.toEqual(first.results.lists);
      expect(changed.results.scores.candidates.slice(0, 2).map(meanOf)).toEqual(
        first.results.scores.candidates.slice(0, 2).map(meanOf),
      );
    },
    RUN_MS,
  );

  test(
    "has tasks that nobody passes who was trained on shuffled answers",
    async () => {
      const rows = await shuffledRows("numbers");
      await writeFile(join(folder.path, "rows.jsonl"), rows);
      const { nodes } = factorySchema.parse(parse(await readFile(COMPOSITION, "utf8")));
      const values = {
        model,
        tasks: tasks.validation,
        rows: join(folder.path, "rows.jsonl"),
        settings: JSON.stringify({ ...nodes.numbers.kwargs.settings, ...TINY }),
      };
      const set = Object.entries(values).flatMap(([name, value]) => ["--set", `${name}=${value}`]);
      const run = await runCli(["run", CONTROL, "--json", ...set], { dataDir });
      expect(run.exitCode, run.stderr).toBe(0);
      const [control] = controlSchema.parse(JSON.parse(run.stdout)).results.scores.candidates;
      expect(meanOf(control)).toBeLessThanOrEqual(0.05);
      expect(rateOf(control, "numbers")).toBeLessThanOrEqual(0.05);
    },
    RUN_MS,
  );
});

/** The training rows of a family, each with the answer of another one. */
async function shuffledRows(family: string): Promise<string> {
  const text = await readFile(join(FACTORY, `tasks/${family}.jsonl`), "utf8");
  const row = z.object({ prompt: z.string(), completion: z.string() });
  const rows = text
    .trim()
    .split("\n")
    .map((line) => row.parse(JSON.parse(line)));
  const shift = Math.floor(rows.length / 2) + 1;
  return rows
    .map(({ prompt }, at) => {
      const completion = rows[(at + shift) % rows.length]?.completion;
      return JSON.stringify({ prompt, completion }) + "\n";
    })
    .join("");
}

/** Resolves when the stream has carried `text`; it is read on, so that its writer never blocks. */
async function printed(stream: Readable, text: string): Promise<void> {
  const found = Promise.withResolvers<void>();
  let seen = "";
  stream.on("data", (chunk: Buffer) => {
    seen += chunk.toString("utf8");
    if (seen.includes(text)) found.resolve();
  });
  stream.once("end", () => {
    found.reject(new Error(`ended without ${text}: ${seen}`));
  });
  await found.promise;
}
