import { isRecord } from "../util/record.ts";

type Schema = Readonly<Record<string, unknown>>;

/** A schema and everything it may stand for. */
export function alternatives(schema: unknown): readonly Schema[] {
  if (!isRecord(schema)) return [];
  const nested = ["anyOf", "oneOf", "allOf"].flatMap((word) => {
    const options = schema[word];
    return Array.isArray(options) ? options.flatMap(alternatives) : [];
  });
  return [schema, ...nested];
}

/** What the alternatives say about the members of a list (`items`). */
export function memberOf(options: readonly Schema[], word: string): Schema {
  return { anyOf: options.map((option) => option[word]) };
}

/** What the alternatives say about the member of an object that has this name. */
export function propertyOf(options: readonly Schema[], key: string): Schema {
  const found = options.map((option) => {
    const properties = option["properties"];
    return isRecord(properties) && Object.hasOwn(properties, key)
      ? properties[key]
      : option["additionalProperties"];
  });
  return { anyOf: found };
}

/** Whether a text at this place is the path of a file or folder. */
export function isPathPlace(options: readonly Schema[]): boolean {
  return options.some(({ format }) => format === "cjm-file" || format === "cjm-dir");
}
