import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { z } from "zod";
import {
  bindInputs,
  composition,
  compositionFileSchema,
  evaluateWhen,
  input,
  parseComposition,
  parseCompositionFile,
  parseInputText,
  ref,
  resolveForEach,
  resolveKwargs,
  type Composition,
  type InputDeclaration,
} from "../../../src/composition/index.ts";

const FILE = `
name: grade
fail_fast: false
inputs:
  count: { type: integer, default: 3, description: How many. }
instances:
  jail: { capability: sandbox, config: { memory_mb: 64 }, max_concurrent_requests: 4 }
nodes:
  write:
    capability: inference
    action: generate
    kwargs: { prompt: Hello, n: { $ref: $input.count } }
    timeout_seconds: 1.5
    retries: 2
    priority: 5
  run:
    capability: jail
    for_each: { $ref: write.programs }
    kwargs: { code: { $ref: $item.code }, language: python }
    when: { all: [{ $ref: write.ok }, { value: { $ref: write.score }, at_least: 0.5 }] }
`;

function failure(content: unknown): { message: string; fieldsInvalid: readonly string[] } {
  try {
    parseCompositionFile(content);
  } catch (error) {
    if (error instanceof Error && "fieldsInvalid" in error && Array.isArray(error.fieldsInvalid)) {
      return { message: error.message, fieldsInvalid: error.fieldsInvalid.map(String) };
    }
  }
  return expect.fail("the file was accepted");
}

describe("a composition file", () => {
  test("becomes a composition", () => {
    const expected: Composition = composition(
      {
        write: {
          capability: "inference",
          action: "generate",
          kwargs: { prompt: "Hello", n: input("count") },
          timeoutMs: 1_500,
          retries: 2,
          priority: 5,
        },
        run: {
          capability: "jail",
          forEach: ref("write", "programs"),
          kwargs: { code: { $ref: "$item.code" }, language: "python" },
          when: { all: [ref("write", "ok"), { value: ref("write", "score"), at_least: 0.5 }] },
        },
      },
      {
        name: "grade",
        failFast: false,
        inputs: { count: { type: "integer", default: 3, description: "How many." } },
        instances: {
          jail: { capability: "sandbox", config: { memory_mb: 64 }, maxConcurrentRequests: 4 },
        },
      },
    );
    expect(parseCompositionFile(parse(FILE))).toEqual(expected);
  });

  test("may list its nodes with an id each", () => {
    const listed = parseCompositionFile({ nodes: [{ id: "a", capability: "c" }] });
    expect(listed).toEqual(composition({ a: { capability: "c" } }));
    expect(failure({ nodes: [{ capability: "c" }] }).fieldsInvalid).toEqual(["nodes.0.id"]);
  });

  test("reports every wrong key at once", () => {
    const { message, fieldsInvalid } = failure({
      fail_fast: "yes",
      inputs: { n: { type: "float" } },
      nodes: { a: { capability: "c", kwarg: {}, retries: -1 }, b: { action: "x" } },
    });
    expect(fieldsInvalid).toEqual(
      expect.arrayContaining([
        "fail_fast",
        "inputs.n.type",
        "nodes.a.retries",
        "nodes.b.capability",
      ]),
    );
    expect(message).toContain('"kwarg"');
  });

  test.each([
    ["nothing at all", null],
    ["text", "nodes"],
    [
      "a condition that compares nothing",
      { nodes: { a: { capability: "c", when: { value: 1 } } } },
    ],
    ["a name that is no name", { nodes: { "a.b": { capability: "c" } } }],
  ])("that is %s is refused", (_what, content) => {
    expect(failure(content).fieldsInvalid.length).toBeGreaterThan(0);
  });

  test("keeps its meaning through JSON, as a stored run or another process gives it back", () => {
    const spec = parseCompositionFile(parse(FILE));
    expect(parseComposition(JSON.parse(JSON.stringify(spec)))).toEqual(spec);
    expect(() => parseComposition({ ...spec, nodes: [{ id: "a" }] })).toThrow(/nodes.0.instance/u);
  });

  test("has a JSON Schema for editors", () => {
    const schema = z.toJSONSchema(compositionFileSchema, { io: "input" });
    expect(schema).toMatchObject({ type: "object", required: ["nodes"] });
  });
});

describe("inputs", () => {
  const spec = composition(
    {
      use: {
        capability: "c",
        kwargs: { n: input("n"), deep: [input("options", "list.1")], whole: input("options") },
        when: { any: [input("flag"), { value: input("n"), greater_than: 100 }] },
        forEach: input("items"),
      },
    },
    {
      inputs: {
        n: { type: "integer", default: 1 },
        options: { type: "object" },
        flag: { type: "boolean", default: true },
        items: { type: "array", default: [{ $ref: "not.a.marker" }] },
        mode: { type: "string", default: "a", options: ["a", "b"] },
      },
      instances: { c: { capability: "tool", config: { mode: input("mode") } } },
    },
  );
  const options = { list: [1, { $ref: "use.x" }] };

  test("replace their markers by the values given or the defaults", () => {
    const bound = bindInputs(spec, { n: 7, options, mode: "b" });
    const [node] = bound.nodes;
    if (node === undefined) expect.fail("the node is gone");
    const scope = { upstream: () => undefined };
    expect(resolveKwargs(node, scope)).toEqual({ n: 7, deep: [{ $ref: "use.x" }], whole: options });
    expect(evaluateWhen(node, scope)).toBe(true);
    expect(resolveForEach(node, scope)).toEqual([{ $ref: "not.a.marker" }]);
    expect(bound.instances["c"]?.config).toEqual({ mode: "b" });
  });

  test("are refused all at once: unknown, missing, of a wrong type, no option", () => {
    expect(() => bindInputs(spec, { n: 1.5, mode: "c", nn: 1 })).toThrow(
      expect.objectContaining({
        code: "COMPOSITION_INVALID",
        fieldsInvalid: ["inputs.nn", "inputs.n", "inputs.options", "inputs.mode"],
      }),
    );
    expect(() => bindInputs(spec, { options: {} })).toThrow(
      /no value for "\$input.options.list.1"/u,
    );
  });

  test.each<[InputDeclaration["type"], string, unknown]>([
    ["string", "12", "12"],
    ["integer", "12", 12],
    ["boolean", "true", true],
    ["array", "[1]", [1]],
    ["object", '{"a":1}', { a: 1 }],
  ])("of type %s are read from the text %s", (type, text, value) => {
    expect(parseInputText("x", { type }, text)).toEqual(value);
  });

  test("that cannot be read from their text name the input", () => {
    expect(() => parseInputText("x", { type: "integer" }, "twelve")).toThrow(
      /Input x is not of type/u,
    );
  });
});
