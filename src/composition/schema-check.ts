import { z } from "zod";
import { isRecord } from "../util/record.ts";

/** What is wrong with a value, and where inside it. */
export interface SchemaIssue {
  readonly path: readonly (string | number)[];
  readonly message: string;
}

type JsonSchema = Readonly<Record<string, unknown>>;
const compiled = new WeakMap<JsonSchema, z.ZodType | undefined>();

/**
 * What a JSON Schema says against kwargs whose values are partly not known yet.
 *
 * Issues at, inside or above one of `openPaths` (values that come later) are left out. A kwarg that
 * the schema does not name is an issue even where the schema is silent about others: the worker
 * would drop it. A schema this validator cannot read finds nothing; the worker checks again.
 */
export function checkAgainstSchema(
  schema: JsonSchema,
  kwargs: Readonly<Record<string, unknown>>,
  openPaths: readonly (readonly (string | number)[])[],
): readonly SchemaIssue[] {
  const result = compile(schema)?.safeParse(kwargs);
  const found = result?.error === undefined ? [] : result.error.issues.flatMap(toIssues);
  const issues = [...found, ...unnamedKwargs(schema, kwargs)].filter(
    ({ path }) => !openPaths.some((open) => isPrefix(open, path) || isPrefix(path, open)),
  );
  return [...new Map(issues.map((issue) => [issue.path.join("."), issue])).values()];
}

function compile(schema: JsonSchema): z.ZodType | undefined {
  if (!compiled.has(schema)) compiled.set(schema, tryCompile(schema));
  return compiled.get(schema);
}

function tryCompile(schema: JsonSchema): z.ZodType | undefined {
  try {
    return z.fromJSONSchema(schema);
  } catch {
    return undefined;
  }
}

function unnamedKwargs(
  schema: JsonSchema,
  kwargs: Readonly<Record<string, unknown>>,
): readonly SchemaIssue[] {
  const { properties, additionalProperties, patternProperties } = schema;
  const isOpen =
    additionalProperties === true || isRecord(additionalProperties) || isRecord(patternProperties);
  if (isOpen || !isRecord(properties)) return [];
  return Object.keys(kwargs)
    .filter((key) => !Object.hasOwn(properties, key))
    .map((key) => ({ path: [key], message: unknownKwarg(key, Object.keys(properties)) }));
}

function unknownKwarg(key: string, known: readonly string[]): string {
  const list = known.length === 0 ? "it takes none" : `it takes ${known.join(", ")}`;
  return `there is no parameter "${key}"; ${list}`;
}

function toIssues(issue: z.core.$ZodIssue): readonly SchemaIssue[] {
  const path = issue.path.map((segment) =>
    typeof segment === "number" ? segment : String(segment),
  );
  if (issue.code !== "unrecognized_keys") return [{ path, message: issue.message }];
  return issue.keys.map((key) => ({ path: [...path, key], message: `unknown key "${key}"` }));
}

function isPrefix(prefix: readonly unknown[], path: readonly unknown[]): boolean {
  return prefix.length <= path.length && prefix.every((segment, index) => segment === path[index]);
}
