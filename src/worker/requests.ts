import type { z } from "zod";
import type * as Wire from "../protocol/wire.ts";
import { validate } from "./validation.ts";

let wire: Promise<typeof Wire> | undefined;

/**
 * Loads the schemas of requests, once. Building them takes a tenth of a worker's start, and ready
 * needs none of them.
 */
export function loadRequestSchemas(): Promise<typeof Wire> {
  wire ??= import("../protocol/wire.ts");
  return wire;
}

/** @throws {CjmError} `CAPABILITY_INPUT`, naming every bad field of the body at once. */
export async function parseRequest<Schema extends z.ZodType>(
  path: string,
  body: unknown,
  schemaOf: (wire: typeof Wire) => Schema,
): Promise<z.output<Schema>> {
  const schema = schemaOf(await loadRequestSchemas());
  return validate(schema, body, { code: "CAPABILITY_INPUT", what: `body of ${path}` });
}
