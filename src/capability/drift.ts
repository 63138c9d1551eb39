import { z } from "zod";
import type { DiscoveredManifest } from "../config/index.ts";
import type { WorkerConnection } from "../process/index.ts";
import { structuralSurfaceSchema } from "../protocol/index.ts";
import { hashCanonical } from "../util/canonical-json.ts";

/** What a worker says of itself that its manifest says otherwise. */
export type Drift = "config_schema" | "structural_surface";

const anyObject = z.record(z.string(), z.unknown());

/**
 * Compares the live worker with its manifest. What either does not say, the worker until `signal`
 * aborts, is not compared.
 *
 * Both sides are hashed in our own canonical form: a hash another language made of the same schema
 * differs where the two print a number differently.
 */
export async function findDrift(
  { manifest: { code, drift_tracking, overrides } }: DiscoveredManifest,
  connection: WorkerConnection,
  signal: AbortSignal,
): Promise<readonly Drift[]> {
  const isOriginal = code.sdk === "cjm-substrate";
  const [schema, surface] = await Promise.all([
    ask(() => connection.get("/config_schema", anyObject, { signal })),
    ask(() => connection.get("/structural_surface", structuralSurfaceSchema, { signal })),
  ]);
  const drift: Drift[] = [];
  // An operator's overlay of the schema is no drift: the witness is what provisioning saw.
  const stored = isOriginal ? undefined : (drift_tracking.config_schema_hash ?? undefined);
  const recorded = stored ?? ("config_schema" in overrides ? undefined : hash(code.config_schema));
  if (differs(recorded, hash(schema))) drift.push("config_schema");
  const shape = "structural_surface" in overrides ? undefined : hash(code.structural_surface);
  if (differs(shape, hash(surface))) drift.push("structural_surface");
  return drift;
}

async function ask<T>(request: () => Promise<{ readonly value: T }>): Promise<T | undefined> {
  try {
    return (await request()).value;
  } catch {
    return undefined;
  }
}

function hash(value: unknown): string | undefined {
  return value === null || value === undefined ? undefined : hashCanonical(value);
}

function differs(recorded: string | undefined, live: string | undefined): boolean {
  return recorded !== undefined && live !== undefined && recorded !== live;
}
