import { validateJsonSchema } from "../protocol/json-schema.ts";
import { isRecord } from "../util/record.ts";
import { closest } from "../util/suggest.ts";

type Values = Readonly<Record<string, unknown>>;

export interface InstanceConfigInput {
  /** JSON Schema of the configuration; absent: everything is accepted. */
  readonly schema: Values | null | undefined;
  /** What the store keeps for this instance. */
  readonly persisted?: Values | undefined;
  /** What the caller asked for now. */
  readonly explicit?: Values | undefined;
  /** Whether an unknown explicit key is an error; otherwise it is dropped. @default true */
  readonly strict?: boolean | undefined;
}

export interface InstanceConfigResult {
  /** Defaults of the schema, then persisted, then explicit values, key by key. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Keys left out because the schema does not know them. */
  readonly dropped: readonly string[];
  /** Everything that is wrong, at once; the config must not be used where there is one. */
  readonly errors: readonly { readonly key: string; readonly message: string }[];
}

/** The effective configuration of an instance. */
export function resolveInstanceConfig(input: InstanceConfigInput): InstanceConfigResult {
  const { schema, persisted = {}, explicit = {}, strict = true } = input;
  const properties = isRecord(schema?.["properties"]) ? schema["properties"] : {};
  const isOpen = acceptsUnknownKeys(schema);
  const isKnown = (key: string): boolean => isOpen || Object.hasOwn(properties, key);

  const unknown = Object.keys(explicit).filter((key) => !isKnown(key));
  const dropped = Object.keys(persisted).filter((key) => !isKnown(key) && !(key in explicit));
  const config = Object.fromEntries(
    [
      ...Object.entries(defaultsOf(properties)),
      ...Object.entries(persisted),
      ...Object.entries(explicit),
    ].filter(([key, value]) => value !== undefined && isKnown(key)),
  );
  const errors = validateJsonSchema(schema ?? true, config).map(({ path, message }) => ({
    key: path,
    message,
  }));
  if (!strict) return { config, dropped: [...dropped, ...unknown], errors };
  const unknownErrors = unknown.map((key) => ({ key, message: unknownMessage(key, properties) }));
  return { config, dropped, errors: [...unknownErrors, ...errors] };
}

/** A schema that says nothing about further keys is read as the original reads it: there are none. */
function acceptsUnknownKeys(schema: Values | null | undefined): boolean {
  if (schema === null || schema === undefined) return true;
  const { additionalProperties, properties } = schema;
  if (additionalProperties === undefined) return !isRecord(properties);
  return additionalProperties !== false;
}

function defaultsOf(properties: Values): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(properties).flatMap(([key, property]) =>
      isRecord(property) && "default" in property ? [[key, property["default"]]] : [],
    ),
  );
}

function unknownMessage(key: string, properties: Values): string {
  const meant = closest(key, Object.keys(properties));
  return meant === undefined ? "unknown key" : `unknown key; did you mean "${meant}"?`;
}
