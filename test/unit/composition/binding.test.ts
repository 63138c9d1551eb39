import { describe, expect, test } from "vitest";
import { CjmError } from "../../../src/errors/index.ts";
import {
  composition,
  evaluateWhen,
  ref,
  resolveKwargs,
  type BindingScope,
  type CompositionNode,
  type Condition,
  type NodeSpec,
} from "../../../src/composition/index.ts";

function nodeOf(spec: Omit<NodeSpec, "capability">): CompositionNode {
  const [node] = composition({ use: { capability: "c", ...spec } }).nodes;
  if (node === undefined) throw new TypeError("unreachable");
  return node;
}

function scopeWith(results: Readonly<Record<string, unknown>>): BindingScope {
  return {
    upstream(id) {
      if (Object.hasOwn(results, id)) return { kind: "value", value: results[id] };
      return id === "absent" ? { kind: "absent" } : undefined;
    },
  };
}

const bind = (kwargs: Record<string, unknown>, results: Record<string, unknown> = {}): unknown =>
  resolveKwargs(nodeOf({ kwargs }), scopeWith(results));

const FILE = { __wire__: "file.ref", data: { path: "/m", size: 1, sha256: "sha256:0" } };

describe("a marker in kwargs", () => {
  test("is replaced at any depth; everything else passes through", () => {
    const kwargs = { a: 1, list: [{ deep: ref("write", "text") }, "x"], whole: ref("write") };
    expect(bind(kwargs, { write: { text: "T" } })).toEqual({
      a: 1,
      list: [{ deep: "T" }, "x"],
      whole: { text: "T" },
    });
  });

  test.each([
    ["an index of a list", "hits.1.title", { hits: [{ title: "a" }, { title: "b" }] }, "b"],
    ["inside the data of a tagged value", "model.path", { model: FILE }, "/m"],
    ["a tagged value as it is", "model", { model: FILE }, FILE],
    ["the data itself by name", "model.data.size", { model: FILE }, 1],
    ["a value that is null", "none", { none: null }, null],
  ])("finds %s", (_what, path, result, expected) => {
    expect(bind({ value: ref("n", path) }, { n: result })).toEqual({ value: expected });
  });

  test.each([
    ["text.missing", { text: { there: 1 } }],
    ["hits.2", { hits: [1, 2] }],
    ["hits.length", { hits: [1, 2] }],
    ["constructor", {}],
    ["text.0", { text: "abc" }],
  ])("that finds nothing at %s names node, kwarg and marker", (path, result) => {
    const failure = (): unknown => bind({ prompt: { of: ref("n", path) } }, { n: result });
    expect(failure).toThrow(CjmError);
    expect(failure).toThrow(
      expect.objectContaining({
        code: "COMPOSITION_BINDING",
        details: { node: "use", path: "kwargs.prompt.of" },
      }),
    );
    expect(failure).toThrow(`finds nothing at "n.${path}"`);
  });

  test("that is optional gives null for a skipped source, and only then", () => {
    expect(bind({ a: ref("absent", "x", { optional: true }) })).toEqual({ a: null });
    expect(() => bind({ a: ref("absent", "x") })).toThrow(/has none/u);
    expect(() => bind({ a: ref("failed", { optional: true }) })).toThrow(/has none/u);
    expect(() => bind({ a: ref("n", "x", { optional: true }) }, { n: {} })).toThrow(
      /finds nothing/u,
    );
  });

  test("is not seen in a literal or in a JSON Schema's local pointer", () => {
    const schema = { properties: { a: { $ref: "#/$defs/A" } } };
    expect(bind({ schema, raw: { $literal: { $ref: "n.x" } } })).toEqual({
      schema,
      raw: { $ref: "n.x" },
    });
  });

  test("for an item has a meaning in for_each only", () => {
    expect(() => bind({ a: { $ref: "$item.x" } })).toThrow(/outside for_each/u);
    expect(() => bind({ a: { $ref: "$index" } })).toThrow(/outside for_each/u);
    expect(() => bind({ a: { $ref: "$input.x" } })).toThrow(/without a value/u);
  });
});

describe("when", () => {
  const results = { check: { passed: true, score: 0.5, label: "b", tags: ["x"], empty: "" } };
  const holds = (when: Condition): boolean => evaluateWhen(nodeOf({ when }), scopeWith(results));
  const score = ref("check", "score");

  test.each<[Condition, boolean]>([
    [true, true],
    [ref("check", "passed"), true],
    [ref("check", "empty"), false],
    [ref("absent", { optional: true }), false],
    [{ not: ref("check", "passed") }, false],
    [{ all: [ref("check", "passed"), { value: score, less_than: 1 }] }, true],
    [{ any: [false, { value: score, at_least: 0.5 }] }, true],
    [{ value: score, greater_than: 0.5 }, false],
    [{ value: score, at_least: 0.2, at_most: 0.4 }, false],
    [{ value: ref("check", "label"), less_than: "c" }, true],
    [{ value: ref("check", "tags"), equals: ["x"] }, true],
    [{ value: ref("check", "label"), not_equals: "b" }, false],
    [{ value: ref("check", "label"), in: ["a", "b"] }, true],
    [{ value: "x", in: ref("check", "tags") }, true],
  ])("%j is %s", (when, expected) => {
    expect(holds(when)).toBe(expected);
  });

  test("is true where there is none", () => {
    expect(evaluateWhen(nodeOf({}), scopeWith({}))).toBe(true);
  });

  test("says which values have no order", () => {
    expect(() => holds({ value: score, less_than: "1" })).toThrow(
      /Node "use": when compares a number with a string, which have no order/u,
    );
    expect(() => holds({ value: score, in: "text" })).toThrow(/which is no list/u);
    expect(() => holds(ref("check", "gone"))).toThrow(/finds nothing/u);
  });
});
