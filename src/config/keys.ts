import { z } from "zod";
import { cjmConfigSchema } from "./schema.ts";

/** One key of cjm.yaml that holds a value. */
export interface ConfigKey {
  /** Dotted, as in the file: `queue.max_concurrent_lanes`. */
  readonly key: string;
  /** The variables that set it, the first one that is set wins. */
  readonly variables: readonly string[];
  /** JSON Schema of the value, with its description and default. */
  readonly schema: Readonly<Record<string, unknown>>;
}

/** Variables of the original that do not follow the rule `CJM_<KEY>`. */
const ORIGINAL_VARIABLES: Readonly<Record<string, string>> = {
  "runtime.prefix": "CJM_CONDA_PREFIX",
  "runtime.conda_type": "CJM_CONDA_TYPE",
};

let keys: readonly ConfigKey[] | undefined;

/** Every key of cjm.yaml, in the order of the schema. */
export function configKeys(): readonly ConfigKey[] {
  keys ??= leavesOf(cjmConfigSchema, []);
  return keys;
}

/** The keys whose values are paths; `runtime.binaries` holds one for each platform. */
export const PATH_KEYS: readonly string[] = [
  "data_dir",
  "capabilities_config",
  "models_dir",
  "runtime.prefix",
];

function leavesOf(schema: z.core.$ZodType, path: readonly string[]): ConfigKey[] {
  const inner = withoutDefault(schema);
  if (inner instanceof z.ZodObject) {
    const shape: Readonly<Record<string, z.core.$ZodType>> = inner.shape;
    return Object.entries(shape).flatMap(([name, child]) => leavesOf(child, [...path, name]));
  }
  const key = path.join(".");
  const original = ORIGINAL_VARIABLES[key];
  const own = `CJM_${path.join("_").toUpperCase()}`;
  return [
    {
      key,
      variables: original === undefined ? [own] : [original, own],
      // Made when it is asked for: to make all of them takes longer than to read cjm.yaml.
      get schema() {
        const { $schema: _, ...json } = z.toJSONSchema(schema, { io: "input" });
        return json;
      },
    },
  ];
}

function withoutDefault(schema: z.core.$ZodType): z.core.$ZodType {
  const isWrapped =
    schema instanceof z.ZodDefault ||
    schema instanceof z.ZodPrefault ||
    schema instanceof z.ZodOptional;
  return isWrapped ? withoutDefault(schema.unwrap()) : schema;
}

/** A variable's text as the value its key takes; text that does not fit is left for the schema to refuse. */
export function valueOfText(text: string, schema: Readonly<Record<string, unknown>>): unknown {
  switch (schema["type"]) {
    case "number":
    case "integer":
      return text.trim() === "" || Number.isNaN(Number(text)) ? text : Number(text);
    case "boolean":
      if (/^(?:true|1|yes|on)$/iu.test(text)) return true;
      return /^(?:false|0|no|off)$/iu.test(text) ? false : text;
    case "array":
      return text
        .split(",")
        .map((part) => part.trim())
        .filter((part) => part !== "");
    case "object":
      return jsonOr(text);
    default:
      return text;
  }
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
