import { existsSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { CjmError, z } from "cjm-substrate/worker";
import { refuse } from "./fault.ts";
import { sha256Schema } from "./task/parameters.ts";

/** What marks the database of worker `adapter-registry`, and the schema that is read here. */
const APPLICATION_ID = 0x43_4a_4d_52;
const SCHEMA_VERSION = 1;
const BUSY_MS = 5000;

const versionSchema = z.object({ user_version: z.int() });
const markSchema = z.object({ application_id: z.int() });
const rowSchema = z.object({ file_hash: sha256Schema });

/** An adapter as a registry has it; whether the files are still that content is not looked at here. */
export interface RegisteredAdapter {
  readonly path: string;
  readonly sha256: string;
}

/** Where the adapters of worker `adapter-registry` lie unless a config says otherwise. */
export function registryFolder(configured: string | undefined): string | undefined {
  if (configured !== undefined) return configured;
  const shared = process.env["CJM_CAPABILITY_DATA_DIR"];
  return shared === undefined ? undefined : join(shared, "adapter-registry");
}

/**
 * Finds an adapter in the folder of a registry, archived or not. Nothing is written: the worker that
 * keeps the registry may run beside this, or not at all.
 *
 * @throws {CjmError} `adapter_unknown`, `registry_missing`, `registry_invalid`
 */
export function findRegistered(folder: string | undefined, id: string): RegisteredAdapter {
  if (folder === undefined) {
    throw refuse("registry_missing", `"${id}" needs a registry: set adapter_registry`);
  }
  const path = join(folder, "registry.db");
  if (!existsSync(path)) throw refuse("registry_missing", `There is no registry in ${folder}`);
  const sha256 = hashOf(path, id);
  if (sha256 === undefined) {
    throw refuse("adapter_unknown", `The registry in ${folder} has no adapter "${id}"`);
  }
  const hex = sha256.slice("sha256:".length);
  return { path: join(folder, "adapters", hex.slice(0, 2), hex), sha256 };
}

function hashOf(path: string, id: string): string | undefined {
  try {
    using database = new DatabaseSync(path, { readOnly: true, timeout: BUSY_MS });
    const { user_version: version } = versionSchema.parse(
      database.prepare("pragma user_version").get(),
    );
    const { application_id: mark } = markSchema.parse(
      database.prepare("pragma application_id").get(),
    );
    if (mark !== APPLICATION_ID) throw invalid(path, "is not a registry of adapters");
    if (version !== SCHEMA_VERSION) throw invalid(path, `has schema ${version}`);
    const row = database.prepare("select file_hash from adapter where id = ?").get(id);
    return row === undefined ? undefined : rowSchema.parse(row).file_hash;
  } catch (error) {
    if (error instanceof CjmError) throw error;
    throw invalid(path, `cannot be read: ${String(error)}`, error);
  }
}

function invalid(path: string, what: string, cause?: unknown): CjmError {
  return refuse("registry_invalid", `${path} ${what}`, { cause, details: { path } });
}
