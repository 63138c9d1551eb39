import { z } from "zod";
import { CjmError, type ErrorCode } from "../errors/index.ts";

/**
 * Parses with a schema.
 *
 * @throws {CjmError} `code`, naming every bad field at once.
 */
export async function validate<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
  failure: { readonly code: ErrorCode; readonly what: string },
): Promise<z.output<Schema>> {
  const parsed = await parse(schema, value);
  if (parsed.success) return parsed.data;
  const issues = parsed.error.issues;
  const text = issues.map((issue) => `${fieldsOf(issue).join(", ")}: ${issue.message}`).join("; ");
  throw new CjmError(failure.code, `${failure.what}: ${text}`, {
    fieldsInvalid: [...new Set(issues.flatMap(fieldsOf))],
  });
}

/** Schemas with a part that has to be waited for. */
const asynchronous = new WeakSet<z.ZodType>();

/** At once where the schema allows it, which takes a fraction of the time. */
function parse<Schema extends z.ZodType>(
  schema: Schema,
  value: unknown,
): z.ZodSafeParseResult<z.output<Schema>> | Promise<z.ZodSafeParseResult<z.output<Schema>>> {
  if (!asynchronous.has(schema)) {
    try {
      return schema.safeParse(value);
    } catch {
      // It says so by throwing, in a class of the author's own zod; what a check throws comes again.
      asynchronous.add(schema);
    }
  }
  return schema.safeParseAsync(value);
}

function fieldsOf(issue: z.core.$ZodIssue): string[] {
  const path = issue.path.map(String);
  if (issue.code !== "unrecognized_keys") return [path.join(".") || "(whole)"];
  return issue.keys.map((key) => [...path, key].join("."));
}

const stricts = new WeakMap<z.ZodType, z.ZodType>();

/**
 * The same schema, which refuses keys it does not know where it would drop them: an option that is
 * silently ignored is an error nobody sees.
 */
export function strict(schema: z.ZodType): z.ZodType {
  if (!(schema instanceof z.ZodObject) || schema.def.catchall !== undefined) return schema;
  const known = stricts.get(schema) ?? schema.strict();
  stricts.set(schema, known);
  return known;
}
