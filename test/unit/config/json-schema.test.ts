import { describe, expect, test } from "vitest";
import { z } from "zod";
import { validateJsonSchema } from "../../../src/protocol/index.ts";

const problems = (schema: unknown, value: unknown): string[] =>
  validateJsonSchema(schema, value).map(({ path, message }) => `${path}: ${message}`);

describe("validateJsonSchema", () => {
  const schema = z.toJSONSchema(
    z.strictObject({
      prompt: z.string().min(1),
      count: z.int().min(1).max(8).default(1),
      tags: z
        .array(z.enum(["a", "b"]))
        .max(2)
        .optional(),
      nested: z.object({ list: z.array(z.object({ name: z.string() })) }).optional(),
      note: z.string().nullish(),
    }),
    { io: "input" },
  );

  test("accepts what the schema allows", () => {
    expect(problems(schema, { prompt: "x", count: 2, tags: ["a"], note: null })).toEqual([]);
  });

  test("names every problem at once by its dotted path", () => {
    const value = {
      count: 9.5,
      tags: ["a", "c", "b"],
      nested: { list: [{ name: "x" }, { name: 3 }] },
      pompt: "x",
    };
    expect(problems(schema, value).sort()).toEqual(
      [
        "count: expected integer, received number",
        "nested.list[1].name: expected string, received integer",
        "pompt: unknown key",
        "prompt: required",
        "tags: expected at most 2 items, received 3",
        'tags[1]: expected one of "a", "b"',
      ].sort(),
    );
  });

  test("marks an unknown key as such", () => {
    expect(validateJsonSchema(schema, { prompt: "x", z: 1 })).toEqual([
      { path: "z", message: "unknown key", unknownKey: true },
    ]);
  });

  test("reports the alternative that was meant", () => {
    const union = z.toJSONSchema(
      z.discriminatedUnion("kind", [
        z.object({ kind: z.literal("file"), path: z.string() }),
        z.object({ kind: z.literal("text"), text: z.string() }),
      ]),
    );
    expect(problems(union, { kind: "text", text: 4 })).toEqual([
      "text: expected string, received integer",
    ]);
    expect(problems(z.toJSONSchema(z.union([z.string(), z.number()])), true)).toHaveLength(1);
  });

  test("follows local references, recursive ones too", () => {
    type Tree = { children: Tree[] };
    const tree: z.ZodType<Tree> = z.lazy(() => z.object({ children: z.array(tree) }));
    const recursive = z.toJSONSchema(z.object({ root: tree }));
    expect(problems(recursive, { root: { children: [{ children: [] }] } })).toEqual([]);
    expect(problems(recursive, { root: { children: [{ children: 1 }] } })).toEqual([
      "root.children[0].children: expected array, received integer",
    ]);
  });

  test("ends on a schema that refers only to itself", () => {
    expect(problems({ $ref: "#" }, 1)).toEqual([": nested too deeply"]);
    expect(problems({ $ref: "#/$defs/none" }, 1)).toEqual([
      ": the schema's #/$defs/none leads nowhere",
    ]);
  });

  test("checks numbers, patterns, tuples, records and uniqueness", () => {
    expect(problems({ multipleOf: 0.1 }, 0.3)).toEqual([]);
    expect(problems({ exclusiveMinimum: 1 }, 1)).toHaveLength(1);
    expect(problems({ pattern: "^a" }, "b")).toHaveLength(1);
    expect(problems({ pattern: "(" }, "b")).toHaveLength(1);
    expect(
      problems({ prefixItems: [{ type: "string" }], items: { type: "number" } }, ["a", 1, "b"]),
    ).toEqual(["[2]: expected number, received string"]);
    expect(problems({ additionalProperties: { type: "number" } }, { a: 1, b: "x" })).toHaveLength(
      1,
    );
    expect(
      problems({ uniqueItems: true }, [
        { a: 1, b: 2 },
        { b: 2, a: 1 },
      ]),
    ).toHaveLength(1);
    expect(problems({ not: { type: "string" } }, "x")).toHaveLength(1);
    expect(problems({ allOf: [{ minimum: 2 }, { maximum: 0 }] }, 1)).toHaveLength(2);
    expect(problems(false, 1)).toHaveLength(1);
  });

  test("agrees with zod on values of many kinds", () => {
    const zod = z.object({ a: z.union([z.int(), z.array(z.string())]), b: z.boolean().nullable() });
    const json = z.toJSONSchema(zod);
    const samples = [1, 1.5, "x", null, [], ["a"], [1], {}, true];
    for (const a of samples) {
      for (const b of samples) {
        const agreed = (problems(json, { a, b }).length === 0) === zod.safeParse({ a, b }).success;
        expect({ a, b, agreed }).toEqual({ a, b, agreed: true });
      }
    }
  });

  test("stops at 100 problems", () => {
    const value = Array.from({ length: 10_000 }, () => "x");
    expect(validateJsonSchema({ items: { type: "number" } }, value)).toHaveLength(100);
  });
});
