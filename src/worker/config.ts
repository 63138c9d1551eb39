import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import { isRecord } from "../util/record.ts";
import type { Capability } from "./capability.ts";
import { strict, validate } from "./validation.ts";

/** @throws {CjmError} `CONFIG_INVALID`, naming every bad field at once. */
export async function parseConfig(
  capability: Capability,
  config: unknown,
): Promise<Record<string, unknown>> {
  const parsed = await validate(strict(capability.config), config, {
    code: "CONFIG_INVALID",
    what: `config of ${capability.name}`,
  });
  return isRecord(parsed) ? parsed : {};
}

/** The fields that differ, and their reload triggers, each once, in the order of the fields. */
export function configChange(
  schema: z.ZodObject,
  before: Readonly<Record<string, unknown>>,
  after: Readonly<Record<string, unknown>>,
): { readonly changed: readonly string[]; readonly triggers: readonly string[] } {
  const fields = fieldsOf(schema).filter(([name]) => !isDeepStrictEqual(before[name], after[name]));
  const triggers = fields.map(([, field]) => reloadTrigger(field));
  return {
    changed: fields.map(([name]) => name),
    triggers: [...new Set(triggers.filter((trigger) => trigger !== undefined))],
  };
}

function fieldsOf({ shape }: z.ZodObject): [string, z.core.$ZodType][] {
  const fields: Readonly<Record<string, z.core.$ZodType>> = shape;
  return Object.entries(fields);
}

/** The trigger of a field, also where the mark lies under a default or an optional. */
export function reloadTrigger(field: z.core.$ZodType): string | undefined {
  const mark = z.globalRegistry.get(field)?.["reloadTrigger"];
  if (typeof mark === "string") return mark;
  return isWrapper(field) ? reloadTrigger(field.def.innerType) : undefined;
}

type Wrapper = z.ZodDefault | z.ZodPrefault | z.ZodOptional | z.ZodNullable | z.ZodReadonly;

function isWrapper(field: z.core.$ZodType): field is Wrapper {
  return (
    field instanceof z.ZodDefault ||
    field instanceof z.ZodPrefault ||
    field instanceof z.ZodOptional ||
    field instanceof z.ZodNullable ||
    field instanceof z.ZodReadonly
  );
}

/** @throws {TypeError} where a field names a trigger for which the capability has no release. */
export function checkTriggers({ name, config, release }: Capability): void {
  for (const [field, schema] of fieldsOf(config)) {
    const trigger = reloadTrigger(schema);
    if (trigger !== undefined && !Object.hasOwn(release ?? {}, trigger)) {
      throw new TypeError(`${name}: config.${field} triggers release.${trigger}, which is missing`);
    }
  }
}
