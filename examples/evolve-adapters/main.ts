/**
 * Evolution with a real model: makes the tiny base of the model factory, trains six adapters on it, and
 * runs one sweep over them. What is given on the command line goes to the sweep, such as
 * `--set samples=8`; run it again for the next sweep.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ctl, install, makeBase, settings, wordsOf } from "../model-factory/set-up.ts";

const HERE = import.meta.dirname;
const TASKS = join(HERE, "../model-factory/tasks");

/** The lines of a file as one JSON list. */
async function listOf(file: string): Promise<string> {
  const text = await readFile(join(TASKS, file), "utf8");
  return `[${text.trim().split("\n").join(",")}]`;
}

async function evolve(): Promise<number> {
  for (const file of ["capabilities.yaml", "capabilities.ml.yaml"]) {
    if (!(await install(words, file))) return 1;
  }
  const base = await makeBase(words);
  const trained = await ctl(words, "run", join(HERE, "population.yaml"), ...settings({ ...base }));
  if (trained.code !== 0) return trained.code;
  const asked = {
    model: base.model,
    tasks: await listOf("practice.jsonl"),
    held_out: await listOf("validation.jsonl"),
    samples: 1,
    max_tokens: 80,
    temperature: 0.3,
  };
  const sweep = join(HERE, "composition.yaml");
  return (await ctl(words, "run", sweep, ...settings(asked), ...words.rest)).code;
}

const words = wordsOf(process.argv.slice(2));
process.exitCode = await evolve();
