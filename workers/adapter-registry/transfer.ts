import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { dirRef, type DirRef } from "cjm-substrate/worker";
import { type FolderInput, openAdapterFolder } from "./adapter-folder.ts";
import { AdapterInvalidError } from "./faults.ts";
import type { Asker, AdapterRegistry } from "./registry.ts";
import { manifestSchema, type Manifest } from "./schemas.ts";

const MANIFEST = "registry.json";

/** Writes adapters with all that is known about them into a new folder. */
export async function exportAdapters(
  registry: AdapterRegistry,
  ids: readonly string[],
  folder: string,
): Promise<DirRef> {
  const adapters: Manifest["adapters"] = [];
  for (const id of ids) {
    const { record, decisions } = registry.retrieveById(id);
    const { file_path: _, ...stored } = record;
    const name = stored.file_hash.slice("sha256:".length);
    await registry.files.handOut(stored.file_hash, stored.files, join(folder, name));
    adapters.push({ folder: name, record: stored, decisions });
  }
  const manifest: Manifest = { format: "cjm-adapter-registry", version: 1, adapters };
  await writeFile(join(folder, MANIFEST), `${JSON.stringify(manifest, undefined, 1)}\n`);
  return dirRef(folder);
}

/**
 * Takes over what another registry exported. Every conflict is found before a byte is written; what
 * is here already is left alone, so an import that was interrupted can be repeated.
 */
export async function importAdapters(
  registry: AdapterRegistry,
  archive: FolderInput,
  asker: Asker,
): Promise<{ imported: string[]; present: string[] }> {
  const folder = typeof archive === "string" ? archive : archive.data.path;
  const manifest = await readManifest(join(folder, MANIFEST));
  for (const { record } of manifest.adapters) registry.findConflict(record);
  const [imported, present] = [new Array<string>(), new Array<string>()];
  for (const { folder: name, record, decisions } of manifest.adapters) {
    const adapter = await openAdapterFolder(join(folder, name));
    if (adapter.source.data.sha256 !== record.file_hash) {
      const path = adapter.source.data.path;
      throw new AdapterInvalidError(`${path} is not what "${record.id}" was`, { id: record.id });
    }
    const isNew = await registry.adopt(adapter, { record, decisions }, asker);
    (isNew ? imported : present).push(record.id);
  }
  return { imported, present };
}

async function readManifest(path: string): Promise<Manifest> {
  const text = await readFile(path, "utf8");
  try {
    return manifestSchema.parse(JSON.parse(text));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new AdapterInvalidError(`${path} is no export of a registry: ${reason}`, { path });
  }
}
