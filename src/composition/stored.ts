import { z } from "zod";
import { compact } from "../util/compact.ts";
import { conditionSchema, markerSchema } from "./file.ts";
import { invalidComposition } from "./issues.ts";
import { INPUT_TYPES, type Composition } from "./types.ts";

const jsonObject = z.record(z.string(), z.unknown());

const storedComposition = z.object({
  name: z.string().optional(),
  failFast: z.boolean(),
  priority: z.number(),
  runId: z.string().optional(),
  actor: z.string().optional(),
  inputs: z.record(
    z.string(),
    z.object({
      type: z.enum(INPUT_TYPES),
      description: z.string().optional(),
      default: z.unknown().optional(),
      options: z.array(z.unknown()).optional(),
    }),
  ),
  instances: z.record(
    z.string(),
    z.object({
      capability: z.string(),
      config: jsonObject.optional(),
      maxConcurrentRequests: z.number().optional(),
    }),
  ),
  nodes: z.array(
    z.object({
      id: z.string(),
      instance: z.string(),
      action: z.string().optional(),
      task: z.string().optional(),
      method: z.string().optional(),
      kwargs: jsonObject,
      control: jsonObject,
      priority: z.number(),
      timeoutMs: z.number().optional(),
      retries: z.number().optional(),
      cache: z.boolean(),
      when: conditionSchema.optional(),
      forEach: z.union([markerSchema, z.array(z.unknown())]).optional(),
    }),
  ),
});

/**
 * A {@link Composition} that went through JSON: a stored run, or one submitted by another process.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` if it has another shape.
 */
export function parseComposition(value: unknown): Composition {
  const parsed = storedComposition.safeParse(value);
  if (parsed.success) return compact(parsed.data);
  throw invalidComposition(
    parsed.error.issues.map(({ path, message }) => ({ path: path.map(String).join("."), message })),
  );
}
