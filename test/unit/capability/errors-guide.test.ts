import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ERROR_CODES } from "../../../src/errors/index.ts";

test("the guide to errors has every code there is, with its category, and no other", async () => {
  const guide = await readFile(join(import.meta.dirname, "../../../docs/errors.md"), "utf8");
  const rows = guide.matchAll(/^\| `(?<code>[A-Z_]+)`\s*\| `(?<category>[a-z_]+)`/gmu);
  const listed = [...rows].map(({ groups }) => [groups?.["code"], groups?.["category"]]);
  expect(Object.fromEntries(listed)).toEqual(ERROR_CODES);
});
