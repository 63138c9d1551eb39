import { describe, expect, test } from "vitest";
import { placePaths, type PathSchemas } from "../../../src/composition/index.ts";

const path = { anyOf: [{ type: "object" }, { type: "string", format: "cjm-file" }] };
const SCHEMAS: PathSchemas = {
  config: (instance) =>
    instance === "writer" ? { properties: { model: { format: "cjm-dir" } } } : undefined,
  kwargs: ({ capability }) =>
    capability === "trainer"
      ? {
          properties: {
            data: path,
            parts: { type: "array", items: { properties: { path } } },
            text: { type: "string" },
          },
        }
      : undefined,
};
const place = (document: unknown) => placePaths(document, SCHEMAS, (text) => `/here/${text}`);

describe("paths of a composition file", () => {
  test("are made absolute where the schema of an action or a configuration says so", () => {
    const { document } = place({
      instances: { writer: { capability: "tool", config: { model: "base", name: "base" } } },
      nodes: {
        train: {
          capability: "trainer",
          kwargs: { data: "a.jsonl", text: "a.jsonl", parts: [{ path: "b", id: "b" }] },
        },
      },
    });
    expect(document).toMatchObject({
      instances: { writer: { config: { model: "/here/base", name: "base" } } },
      nodes: {
        train: {
          kwargs: { data: "/here/a.jsonl", text: "a.jsonl", parts: [{ path: "/here/b", id: "b" }] },
        },
      },
    });
  });

  test("are the defaults of inputs that stand where a path does", () => {
    const { document, pathInputs } = place({
      inputs: { rows: { type: "string", default: "a.jsonl" }, title: { default: "a.jsonl" } },
      nodes: [
        {
          id: "train",
          capability: "trainer",
          kwargs: { data: { $ref: "$input.rows" }, text: { $ref: "$input.title" } },
        },
      ],
    });
    expect(document).toMatchObject({
      inputs: { rows: { default: "/here/a.jsonl" }, title: { default: "a.jsonl" } },
    });
    expect([...pathInputs]).toEqual(["rows"]);
  });

  test("are members of a list that a node goes through", () => {
    const { document } = place({
      nodes: {
        train: {
          capability: "trainer",
          for_each: [{ file: "a", name: "a" }, { $ref: "other.result" }],
          kwargs: { data: { $ref: "$item.file" }, text: { $ref: "$item.name" } },
        },
      },
    });
    expect(document).toMatchObject({
      nodes: { train: { for_each: [{ file: "/here/a", name: "a" }, { $ref: "other.result" }] } },
    });
  });

  test("leave results of nodes, references to content and unknown capabilities alone", () => {
    const content = { __wire__: "file.ref", data: { path: "a.jsonl" } };
    const nodes = {
      known: { capability: "trainer", kwargs: { data: { $ref: "other.file" } } },
      given: { capability: "trainer", kwargs: { data: content } },
      unknown: { capability: "nobody", kwargs: { data: "a.jsonl" } },
    };
    expect(place({ nodes }).document).toMatchObject({ nodes });
    expect(place("no composition").document).toBe("no composition");
  });
});
