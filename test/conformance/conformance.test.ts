import { afterAll, describe, expect, test } from "vitest";
import { casesFor, Suite } from "./suite.ts";
import { pythonTarget, typescriptTarget } from "./targets.ts";

const python = pythonTarget();

test.runIf(process.env["CI"] !== undefined)("a Python 3.9 or newer is there", () => {
  expect(python).toBeDefined();
});

for (const target of [typescriptTarget, ...(python === undefined ? [] : [python])]) {
  describe(`a ${target.name} worker`, () => {
    const suite = new Suite(target);
    afterAll(async () => {
      await suite[Symbol.asyncDispose]();
    });
    for (const each of casesFor(target)) test(each.title, () => suite.run(each));
  });
}
