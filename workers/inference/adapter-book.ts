import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { findRegistered } from "./adapter-registry.ts";
import type { ResolvedAdapter } from "./engine.ts";
import { asAdapterFault, refuse } from "./fault.ts";
import { peftConfigSchema } from "./gguf/convert-lora.ts";
import { numberOf, readGguf, textOf } from "./gguf/read.ts";
import { readJson } from "./gguf/tokenizer.ts";
import { hashFile } from "./hash-book.ts";
import { hashFolder } from "./hash-folder.ts";
import type { AdapterUse } from "./task/parameters.ts";
import type { AdapterInfo } from "./task/schemas.ts";

const ID_DIGITS = 12;
const WEIGHTS = "adapter_model.safetensors";

/** An adapter by path or by its id in the registry. */
export type AdapterSource = Pick<AdapterUse, "path" | "registry_id" | "sha256">;

/** Where an adapter lies, what it must be, and what it is called unless it is given a name. */
interface Place {
  readonly path: string;
  readonly hashes: readonly (string | undefined)[];
  readonly name: string | undefined;
}

/** The names that `load_adapter` has given, and adapters found by path; every one checked by hash. */
export class AdapterBook {
  /** Folder of the registry that `registry_id` means; undefined where there is none. */
  registry: string | undefined;
  readonly #dataFolder: string;
  readonly #named = new Map<string, AdapterInfo>();

  constructor(dataFolder: string) {
    this.#dataFolder = dataFolder;
  }

  all(): readonly AdapterInfo[] {
    return [...this.#named.values()];
  }

  /** @throws {CjmError} `adapter_unknown` */
  named(id: string): AdapterInfo {
    const known = this.#named.get(id);
    if (known !== undefined) return known;
    const names = [...this.#named.keys()].join(", ");
    throw refuse("adapter_unknown", `No adapter "${id}" is loaded (loaded: ${names || "none"})`);
  }

  /** @throws {CjmError} `adapter_id_taken` for a name that other content has */
  checkFree(adapter: AdapterInfo): void {
    const known = this.#named.get(adapter.id);
    if (known === undefined || known.sha256 === adapter.sha256) return;
    throw refuse("adapter_id_taken", `"${adapter.id}" is another adapter: unload it first`);
  }

  add(adapter: AdapterInfo): void {
    this.#named.set(adapter.id, adapter);
  }

  remove(id: string): void {
    this.#named.delete(id);
  }

  /**
   * @throws {CjmError} `adapter_unknown`, `adapter_missing`, `adapter_invalid`, `adapter_hash`,
   *   `registry_missing`, `registry_invalid`
   */
  async resolve(uses: readonly AdapterUse[], signal: AbortSignal): Promise<ResolvedAdapter[]> {
    const resolved: ResolvedAdapter[] = [];
    for (const use of uses) resolved.push({ ...(await this.#find(use, signal)), scale: use.scale });
    return resolved;
  }

  /**
   * Describes an adapter as it lies on disk.
   *
   * @param id its name; absent: its id in the registry, or the first digits of its hash
   * @throws {CjmError} as {@link resolve}
   */
  async describe(
    source: AdapterSource,
    id: string | undefined,
    signal: AbortSignal,
  ): Promise<AdapterInfo> {
    const { path, hashes, name } = this.#locate(source);
    const found = await this.#read(path, signal);
    for (const hash of hashes) {
      if (hash !== undefined && hash !== found.sha256) {
        throw refuse("adapter_hash", `${path} is ${found.sha256}, not ${hash}`, {
          details: { path, sha256: found.sha256 },
        });
      }
    }
    return { ...found, id: id ?? name ?? found.sha256.slice(7, 7 + ID_DIGITS) };
  }

  #locate({ path = "", registry_id: id, sha256 }: AdapterSource): Place {
    if (id !== undefined) {
      const stored = findRegistered(this.registry, id);
      return { path: stored.path, hashes: [sha256, stored.sha256], name: id };
    }
    if (typeof path === "string") {
      return { path: resolve(path), hashes: [sha256], name: undefined };
    }
    return { path: resolve(path.data.path), hashes: [sha256, path.data.sha256], name: undefined };
  }

  async #find(use: AdapterUse, signal: AbortSignal): Promise<AdapterInfo> {
    if (use.id === undefined) return await this.describe(use, undefined, signal);
    const { path, id, sha256 } = this.named(use.id);
    // Read again, by its hash: what lies at the path may have changed since it was loaded.
    return await this.describe({ path, sha256: use.sha256 ?? sha256 }, id, signal);
  }

  async #read(path: string, signal: AbortSignal): Promise<Omit<AdapterInfo, "id">> {
    try {
      const { size, isFolder } = await sizeOf(path);
      return isFolder
        ? await this.#peft(path, signal)
        : { ...(await gguf(path)), bytes: size, sha256: await this.#hash(path, signal) };
    } catch (error) {
      throw asAdapterFault(path, error);
    }
  }

  async #peft(path: string, signal: AbortSignal): Promise<Omit<AdapterInfo, "id">> {
    const config = await readJson(join(path, "adapter_config.json"), peftConfigSchema);
    const { size } = await sizeOf(join(path, WEIGHTS));
    return {
      path,
      sha256: await hashFolder(path, this.#dataFolder, { signal }),
      format: "peft",
      bytes: size,
      base_model: config.base_model_name_or_path ?? null,
      rank: config.r,
      alpha: config.lora_alpha,
    };
  }

  async #hash(path: string, signal: AbortSignal): Promise<string> {
    return await hashFile(path, this.#dataFolder, { signal });
  }
}

async function sizeOf(
  path: string,
): Promise<{ readonly size: number; readonly isFolder: boolean }> {
  const found = await stat(path);
  return { size: found.size, isFolder: found.isDirectory() };
}

async function gguf(path: string): Promise<Omit<AdapterInfo, "id" | "sha256" | "bytes">> {
  const { metadata, tensors } = await readGguf(path);
  const first = tensors.find(({ name }) => name.endsWith(".lora_a"));
  return {
    path,
    format: "gguf",
    base_model: textOf(metadata, "general.base_model.0.name") ?? null,
    rank: first?.dimensions[1] ?? null,
    alpha: numberOf(metadata, "adapter.lora.alpha") ?? null,
  };
}
