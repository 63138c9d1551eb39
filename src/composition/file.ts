import { z } from "zod";
import { compact } from "../util/compact.ts";
import { NAME_PATTERN } from "../util/ids.ts";
import { invalidComposition } from "./issues.ts";
import { INPUT_TYPES, type Composition, type CompositionNode, type Condition } from "./types.ts";

const name = z
  .string()
  .regex(NAME_PATTERN, "letters, digits, _ and -, at most 64")
  .refine((id) => id !== "__proto__", "a reserved word");
const kwargs = z.record(z.string(), z.unknown());

const marker = z
  .strictObject({
    $ref: z.string().describe("node.field.path, $item, $index or $input.name"),
    optional: z.boolean().optional(),
  })
  .describe("Where the value comes from.");

const comparison = z
  .strictObject({
    value: z.unknown(),
    equals: z.unknown().optional(),
    not_equals: z.unknown().optional(),
    less_than: z.unknown().optional(),
    at_most: z.unknown().optional(),
    greater_than: z.unknown().optional(),
    at_least: z.unknown().optional(),
    in: z.unknown().optional(),
  })
  .refine((members) => Object.keys(members).length > 1, "compares `value` with nothing");

const condition: z.ZodType<Condition> = z.lazy(() =>
  z.union([
    z.boolean(),
    marker,
    z.strictObject({ not: condition }),
    z.strictObject({ all: z.array(condition) }),
    z.strictObject({ any: z.array(condition) }),
    comparison,
  ]),
);

const node = z
  .strictObject({
    id: name.optional().describe("Only where nodes are written as a list."),
    capability: name.describe("Id of the instance to call; the capability's name by default."),
    action: z.string().min(1).optional(),
    task: z.string().min(1).optional(),
    method: z.string().min(1).optional(),
    kwargs: kwargs.default({}),
    control: kwargs.default({}).describe("Flags of the call, such as force."),
    priority: z.int().default(0).describe("0 inherits the composition's."),
    timeout_seconds: z.number().positive().optional(),
    retries: z.int().nonnegative().optional(),
    cache: z.boolean().default(false),
    when: condition.optional().describe("Skip the node unless this holds."),
    for_each: z
      .union([marker, z.array(z.unknown())])
      .optional()
      .describe("One call for each member of this list."),
  })
  .readonly();

const inputDeclaration = z.strictObject({
  type: z.enum(INPUT_TYPES),
  description: z.string().optional(),
  default: z.unknown().optional(),
  options: z.array(z.unknown()).optional(),
});

const instance = z.strictObject({
  capability: name,
  config: kwargs.optional(),
  max_concurrent_requests: z.int().positive().optional(),
});

/** A composition file as it is written, in YAML or JSON. */
export const compositionFileSchema = z.strictObject({
  name: z.string().optional(),
  fail_fast: z.boolean().default(true).describe("Start nothing new after the first failure."),
  priority: z.int().default(0),
  run_id: z.string().optional(),
  actor: z.string().optional(),
  inputs: z.record(name, inputDeclaration).default({}).describe("Set with --set name=value."),
  instances: z.record(name, instance).default({}).describe("Instances to load, by id."),
  nodes: z
    .union([z.record(name, node), z.array(node)])
    .describe("Nodes by id, or a list of nodes with an id each."),
});

/**
 * A composition from the content of a composition file, its keys in snake_case.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` with every key that is wrong.
 */
export function parseCompositionFile(content: unknown): Composition {
  const parsed = compositionFileSchema.safeParse(content ?? {});
  if (!parsed.success) throw invalidComposition(parsed.error.issues.map(toIssue));
  const file = parsed.data;
  const nodes = Array.isArray(file.nodes)
    ? file.nodes.map((spec) => [spec.id, spec] as const)
    : Object.entries(file.nodes);
  const nameless = nodes.flatMap(([id], index) => (id === undefined ? [index] : []));
  if (nameless.length > 0) {
    throw invalidComposition(
      nameless.map((index) => ({
        path: `nodes.${index}.id`,
        message: "a node in a list needs one",
      })),
    );
  }
  return {
    ...compact({ name: file.name, runId: file.run_id, actor: file.actor }),
    failFast: file.fail_fast,
    priority: file.priority,
    inputs: file.inputs,
    instances: Object.fromEntries(
      Object.entries(file.instances).map(
        ([id, { capability, config, max_concurrent_requests }]) => [
          id,
          compact({ capability, config, maxConcurrentRequests: max_concurrent_requests }),
        ],
      ),
    ),
    nodes: nodes.map(([id, spec]) => toNode(id ?? "", spec)),
  };
}

function toNode(id: string, spec: z.output<typeof node>): CompositionNode {
  const { capability, timeout_seconds: seconds, for_each: forEach, id: _id, ...rest } = spec;
  const timeoutMs = seconds === undefined ? undefined : seconds * 1_000;
  return compact({ ...rest, id, instance: capability, timeoutMs, forEach });
}

function toIssue(issue: z.core.$ZodIssue): { path: string; message: string } {
  const deepest = issue.code === "invalid_union" ? closestBranch(issue) : undefined;
  const path = [...issue.path, ...(deepest?.path ?? [])].map(String).join(".");
  return { path: path === "" ? "composition" : path, message: deepest?.message ?? issue.message };
}

/** A union reports every branch; the one that got furthest is what was meant. */
function closestBranch(issue: z.core.$ZodIssueInvalidUnion): z.core.$ZodIssue | undefined {
  const firsts = issue.errors.map((branch) => branch[0]).filter((first) => first !== undefined);
  return firsts.toSorted((a, b) => b.path.length - a.path.length)[0];
}
