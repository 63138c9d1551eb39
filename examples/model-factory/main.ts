/**
 * The model factory: makes the base model, then runs composition.yaml. What is given on the command
 * line goes to `cjm-ctl run`, such as `--json` or `--set samples=8`; `--seed N` makes everything anew
 * from another seed, the base too.
 *
 * `--set model=<folder>` takes another base; `--set device=cuda` a GPU. Where PyTorch's environments
 * cannot be made, examples/grade-programs is run instead, which needs none.
 */
import { join } from "node:path";
import { ctl, install, makeBase, PACKAGE, settings, type Words, wordsOf } from "./set-up.ts";

const GRADE = "examples/grade-programs/composition.yaml";

async function factory(words: Words): Promise<number> {
  const hasModel = words.rest.some((word) => word.startsWith("model="));
  const inputs = { seed: words.seed, ...(hasModel ? {} : await makeBase(words)) };
  const composition = join(import.meta.dirname, "composition.yaml");
  return (await ctl(words, "run", composition, ...settings(inputs), ...words.rest)).code;
}

const words = wordsOf(process.argv.slice(2));
if (!(await install(words, "capabilities.yaml"))) {
  process.exitCode = 1;
} else if (await install(words, "capabilities.ml.yaml")) {
  process.exitCode = await factory(words);
} else {
  console.error("The environments with PyTorch could not be made; this is the demo without them.");
  process.exitCode = (await ctl(words, "run", join(PACKAGE, GRADE), ...words.rest)).code;
}
