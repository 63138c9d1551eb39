import { expect, test } from "vitest";
import { lineageTree } from "../../../src/cli/adapters/lineage-tree.ts";

const drawn = (id: string, parents: Record<string, string[]>): string[] =>
  lineageTree(id, (one) => parents[one] ?? []).map(
    ({ branches, id: name, isRepeated }) => `${branches}${name}${isRepeated ? " *" : ""}`,
  );

test("parents stand below an adapter, those that stand there already only by name", () => {
  expect(drawn("e", { e: ["d", "c"], d: ["b", "c"], c: ["a", "b"], b: [] })).toEqual([
    "e",
    "├─ d",
    "│  ├─ b",
    "│  └─ c",
    "│     ├─ a",
    "│     └─ b",
    "└─ c *",
  ]);
});

test("a cycle ends", () => {
  expect(drawn("a", { a: ["b"], b: ["a"] })).toEqual(["a", "└─ b", "   └─ a *"]);
});
