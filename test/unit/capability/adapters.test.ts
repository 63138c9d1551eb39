import * as fc from "fast-check";
import { expect, test } from "vitest";
import { matchAdapter } from "../../../src/capability/index.ts";

const names = fc.uniqueArray(fc.constantFrom("a", "b", "c", "d", "e"), { maxLength: 4 });

function surface(
  methods: Readonly<Record<string, readonly string[]>>,
): Parameters<typeof matchAdapter>[1] {
  const list = Object.entries(methods).map(([name, params]) => ({
    name,
    signature: "",
    params: [...params],
  }));
  return { methods: list, properties: [], attributes: {} };
}

test("a method fits exactly if the tool's parameters begin with the adapter's", () => {
  fc.assert(
    fc.property(names, names, (tool, adapter) => {
      const members = {
        methods: [{ name: "run", signature: "", params: adapter }],
        properties: [],
      };
      const isPrefix = adapter.every((param, index) => tool[index] === param);
      expect(matchAdapter(members, surface({ run: tool })).compatible).toBe(isPrefix);
    }),
  );
});

test("a method without recorded parameters fits by name alone", () => {
  const members = { methods: [{ name: "run", signature: "" }], properties: [] };
  expect(matchAdapter(members, surface({ run: ["x"] })).compatible).toBe(true);
  expect(matchAdapter(members, surface({ walk: [] })).missingMethods).toEqual(["run"]);
});

test("a tool without a recorded surface fits nothing and says what to do", () => {
  const members = { methods: [{ name: "run", signature: "" }], properties: ["size"] };
  expect(matchAdapter(members, null)).toMatchObject({
    compatible: false,
    missingMethods: ["run"],
    missingProperties: ["size"],
  });
});
