import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runCli } from "../../support/cli.ts";
import { dataDir, installEnvironments, runPython } from "./environment.ts";

/** The folder of the model factory. */
export const FACTORY = fileURLToPath(new URL("../../../examples/model-factory", import.meta.url));
/** What is not in capabilities.ml.yaml. */
const CAPABILITIES = ["sandbox", "adapter-merger", "adapter-registry", "evaluation"];

/**
 * Everything that the factory needs, made where it is not there yet; the folder of its base model.
 *
 * @throws Error with what the installer printed
 */
export async function prepareFactory(): Promise<string> {
  await installEnvironments();
  const others = await runCli(["install-all", "--only", ...CAPABILITIES], { dataDir });
  if (others.exitCode !== 0) throw new Error(`install-all failed:\n${others.stderr}`);
  const bases = join(dataDir, "model-factory");
  const printed = await runPython("qlora-trainer", [join(FACTORY, "make_base.py"), bases]);
  return printed.trimEnd().split("\n").at(-1) ?? "";
}

/** So many tasks of each family, as the text of a JSON list. */
export async function someTasks(
  split: "validation" | "test",
  ofEachFamily: number,
): Promise<string> {
  const text = await readFile(join(FACTORY, `tasks/${split}.jsonl`), "utf8");
  const lines = text.trim().split("\n");
  return `[${[...lines.slice(0, ofEachFamily), ...lines.slice(-ofEachFamily)].join(",")}]`;
}
