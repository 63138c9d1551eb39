import { validateJsonSchema } from "../protocol/index.ts";
import { isRecord } from "../util/record.ts";

/** What is wrong with a value, and where inside it. */
export interface SchemaIssue {
  /** Dotted, such as `options.list[3].name`. */
  readonly path: string;
  readonly message: string;
}

type JsonSchema = Readonly<Record<string, unknown>>;

/**
 * What a JSON Schema says against kwargs whose values are partly not known yet.
 *
 * Issues at, inside or above one of `openPaths` (values that come later) are left out. A kwarg that
 * the schema does not name is an issue even where the schema is silent about others: the worker
 * would drop it.
 */
export function checkAgainstSchema(
  schema: JsonSchema,
  kwargs: Readonly<Record<string, unknown>>,
  openPaths: readonly (readonly (string | number)[])[],
): readonly SchemaIssue[] {
  const open = openPaths.map(dotted);
  const issues = [...validateJsonSchema(schema, kwargs), ...unnamedKwargs(schema, kwargs)].filter(
    ({ path }) => !open.some((one) => isWithin(path, one) || isWithin(one, path)),
  );
  return [...new Map(issues.map(({ path, message }) => [path, { path, message }])).values()];
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
    .map((key) => ({ path: key, message: unknownKwarg(key, Object.keys(properties)) }));
}

function unknownKwarg(key: string, known: readonly string[]): string {
  const list = known.length === 0 ? "it takes none" : `it takes ${known.join(", ")}`;
  return `there is no parameter "${key}"; ${list}`;
}

/** A path as the validator writes it. */
function dotted(path: readonly (string | number)[]): string {
  return path.reduce<string>(
    (text, part) =>
      typeof part === "number" ? `${text}[${part}]` : text === "" ? part : `${text}.${part}`,
    "",
  );
}

function isWithin(path: string, outer: string): boolean {
  if (outer === "" || path === outer) return true;
  return path.startsWith(outer) && (path[outer.length] === "." || path[outer.length] === "[");
}
