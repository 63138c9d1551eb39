import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  composition,
  findCompositionIssues,
  input,
  item,
  ref,
  validateComposition,
  type Composition,
  type CompositionLookup,
  type CompositionOptions,
  type NodeSpec,
} from "../../../src/composition/index.ts";
import { actionManifestSchema, type ActionManifest } from "../../../src/protocol/index.ts";

function action(shape: z.ZodType, rest: Partial<ActionManifest> = {}): ActionManifest {
  const input_schema = z.toJSONSchema(shape, { io: "input" });
  return actionManifestSchema.parse({ input_schema, output_schema: {}, ...rest });
}

const GENERATE = action(
  z.object({
    prompt: z.string(),
    limits: z.strictObject({ tokens: z.int() }).optional(),
    mode: z.enum(["greedy", "sampled"]).default("greedy"),
    tags: z.array(z.string()).optional(),
    seed: z.int().optional(),
  }),
);

const lookup: CompositionLookup = {
  instance: (id, declaration) => {
    const capability = declaration?.capability ?? id;
    if (capability === "inference") {
      return { capability, enabled: true, actions: { generate: GENERATE } };
    }
    if (capability === "two") {
      const list = action(z.object({}), { repeatable: true });
      const watch = action(z.object({}), { streaming: true });
      return { capability, enabled: true, actions: { list, watch }, tasks: { grade: ["run"] } };
    }
    if (capability === "off") return { capability, enabled: false, actions: {} };
    return capability === "original" ? { capability, enabled: true } : undefined;
  },
};

function issuesOf(
  nodes: Record<string, NodeSpec>,
  options: CompositionOptions = {},
): readonly string[] {
  return issuesIn(composition(nodes, options));
}
function issuesIn(spec: Composition): readonly string[] {
  return findCompositionIssues(spec, lookup).map(
    ({ node, path, message }) => `${node ?? "-"} ${path}: ${message}`,
  );
}
const one = (spec: Partial<NodeSpec>, options?: CompositionOptions): readonly string[] =>
  issuesOf({ n: { capability: "inference", kwargs: { prompt: "p" }, ...spec } }, options);

describe("a composition", () => {
  test("without nodes is valid, and so is one that uses everything", () => {
    expect(issuesOf({})).toEqual([]);
    expect(
      issuesOf(
        {
          write: { capability: "fast", kwargs: { prompt: input("prompt"), mode: "sampled" } },
          grade: { capability: "two", task: "grade", method: "run", kwargs: { any: 1 } },
          each: {
            capability: "inference",
            action: "generate",
            forEach: ref("write", "parts"),
            kwargs: { prompt: item("text"), limits: { tokens: ref("grade", "n") } },
            when: { value: ref("grade", "score"), at_least: 0.5 },
            cache: true,
          },
          old: { capability: "original", action: "whatever", kwargs: { x: { $literal: 1 } } },
        },
        {
          inputs: { prompt: { type: "string", default: "x" }, model: { type: "string" } },
          instances: { fast: { capability: "inference", config: { model: input("model") } } },
        },
      ),
    ).toEqual([
      "each cache: the action does not say that it is repeatable; give it a seed or do not cache it",
    ]);
  });

  test("reports every problem at once, each with its node and path", () => {
    const spec = composition({
      a: { capability: "nowhere" },
      b: { capability: "inference", kwargs: { promt: "p", prompt: 3 } },
      c: { capability: "inference", kwargs: { prompt: ref("ghost") } },
    });
    expect(() => validateComposition(spec, lookup)).toThrow(
      expect.objectContaining({
        code: "COMPOSITION_INVALID",
        fieldsInvalid: [
          "nodes.a.capability",
          "nodes.b.kwargs.prompt",
          "nodes.b.kwargs.promt",
          "nodes.c.kwargs.prompt",
        ],
      }),
    );
    expect(() => validateComposition(spec, lookup)).toThrow(
      /there is no parameter "promt"; it takes prompt, limits, mode, tags, seed/u,
    );
  });

  test("with an id used twice or not usable as a name", () => {
    const spec = composition({ a: { capability: "original" } });
    const twice = { ...spec, nodes: [...spec.nodes, ...spec.nodes] };
    expect(issuesIn(twice)).toEqual(['- nodes.1.id: "a" is used twice']);
    expect(issuesOf({ "a b": { capability: "original" } })).toHaveLength(1);
  });

  test("with a cycle shows the way round it", () => {
    const link = (to: string): NodeSpec => ({ capability: "original", kwargs: { x: [ref(to)] } });
    expect(issuesOf({ a: link("b"), b: link("c"), c: link("a") })).toEqual([
      "a : a cycle: a needs b needs c needs a",
    ]);
  });
});

describe("a marker", () => {
  test.each([
    [{ $ref: "ghost.x" }, 'there is no node "ghost"'],
    [{ $ref: "n.x" }, "refers to its own node"],
    [{ $ref: "a..b" }, "is no reference"],
    [{ $ref: "" }, "is no reference"],
    [{ $ref: "$input.ghost" }, 'there is no input "ghost"'],
    [{ $ref: "$item.x" }, "for_each node only"],
    [{ $ref: "n2", extra: 1 }, 'has no "extra"'],
  ])("%j is refused", (marker, message) => {
    const issues = one({ kwargs: { prompt: "p", tags: [marker] } });
    expect(issues.join("\n")).toContain(message);
    expect(issues.join("\n")).toContain("kwargs.tags.0");
  });

  test("for an item is refused in when and for_each, and any in control", () => {
    expect(one({ forEach: [1], when: item("x") }).join()).toContain("n when:");
    expect(one({ control: { force: ref("x") } }).join()).toContain("control takes no markers");
    expect(one({ forEach: ref("ghost") }).join()).toContain("n for_each:");
  });

  test("in an instance's configuration may name inputs only", () => {
    const instances = { fast: { capability: "inference", config: { model: ref("n", "x") } } };
    expect(one({}, { instances })).toEqual([
      '- instances.fast.config.model: "n.x": a configuration may refer to declared inputs only',
    ]);
  });
});

describe("a call", () => {
  test.each<[string, Partial<NodeSpec>, string]>([
    ["an unknown action", { action: "sing" }, 'has no action "sing"; it has generate'],
    ["no action where none is the default", { capability: "two" }, "no default action"],
    ["a disabled capability", { capability: "off" }, '"off" is disabled'],
    ["an action and a task", { action: "a", task: "b", method: "c" }, "not both"],
    ["a method without its task", { method: "c" }, "needs its task"],
    ["a task without its method", { task: "grade" }, "needs its method"],
    ["an unknown task", { capability: "two", task: "x", method: "y" }, 'no task "x"'],
    ["an unknown method", { capability: "two", task: "grade", method: "y" }, "it has run"],
    ["a streaming action", { capability: "two", action: "watch", kwargs: {} }, "streaming"],
    ["a missing kwarg", { kwargs: {} }, "kwargs.prompt"],
    ["a wrong choice", { kwargs: { prompt: "p", mode: "wild" } }, "kwargs.mode"],
    ["a wrong nested type", { kwargs: { prompt: "p", tags: ["a", 1] } }, "kwargs.tags[1]"],
    ["an unknown nested key", { kwargs: { prompt: "p", limits: { tokens: 1, x: 1 } } }, "limits.x"],
    ["a negative retry count", { retries: -1 }, "n retries"],
    ["a timeout that is not positive", { timeoutMs: 0 }, "n timeout_seconds"],
    ["a priority that is no whole number", { priority: 0.5 }, "n priority"],
  ])("with %s is refused", (_what, spec, message) => {
    expect(one(spec).join("\n")).toContain(message);
  });

  test("is not judged by values that come later", () => {
    const nodes: Record<string, NodeSpec> = {
      a: { capability: "original" },
      n: {
        capability: "inference",
        kwargs: { prompt: ref("a"), mode: ref("a", "m"), limits: ref("a", "l"), tags: [ref("a")] },
      },
    };
    expect(issuesOf(nodes)).toEqual([]);
  });

  test("with a seed, or of an action that is repeatable, may be cached", () => {
    expect(one({ cache: true, kwargs: { prompt: "p", seed: 1 } })).toEqual([]);
    expect(one({ capability: "two", action: "list", kwargs: {}, cache: true })).toEqual([]);
    expect(one({ cache: true })).toHaveLength(1);
  });

  test("nested too deeply is refused", () => {
    let deep: unknown = 1;
    for (let level = 0; level < 70; level += 1) deep = [deep];
    expect(one({ capability: "original", kwargs: { deep } }).join()).toContain("deeper than 64");
  });
});

test("ten thousand nodes are checked in one pass", () => {
  const nodes = Object.fromEntries(
    Array.from({ length: 10_000 }, (_, index): [string, NodeSpec] => [
      `n${index}`,
      { capability: "inference", kwargs: { prompt: index === 0 ? "p" : ref(`n${index - 1}`) } },
    ]),
  );
  expect(issuesOf(nodes)).toEqual([]);
});
