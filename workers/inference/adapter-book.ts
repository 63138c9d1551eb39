import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
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

type Source = NonNullable<AdapterUse["path"]>;

/** The names that `load_adapter` has given, and adapters found by path; every one checked by hash. */
export class AdapterBook {
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

  /** @throws {CjmError} `adapter_unknown`, `adapter_missing`, `adapter_invalid`, `adapter_hash` */
  async resolve(uses: readonly AdapterUse[], signal: AbortSignal): Promise<ResolvedAdapter[]> {
    const resolved: ResolvedAdapter[] = [];
    for (const use of uses) resolved.push({ ...(await this.#find(use, signal)), scale: use.scale });
    return resolved;
  }

  /**
   * Describes the adapter at a path.
   *
   * @param id its name; absent: the first digits of its hash
   */
  async describe(
    source: Source,
    expected: { readonly id?: string | undefined; readonly sha256?: string | undefined },
    signal: AbortSignal,
  ): Promise<AdapterInfo> {
    const path = resolve(typeof source === "string" ? source : source.data.path);
    const found = await this.#read(path, signal);
    for (const hash of [
      expected.sha256,
      typeof source === "string" ? undefined : source.data.sha256,
    ]) {
      if (hash !== undefined && hash !== found.sha256) {
        throw refuse("adapter_hash", `${path} is ${found.sha256}, not ${hash}`, {
          details: { path, sha256: found.sha256 },
        });
      }
    }
    return { ...found, id: expected.id ?? found.sha256.slice(7, 7 + ID_DIGITS) };
  }

  async #find(use: AdapterUse, signal: AbortSignal): Promise<AdapterInfo> {
    if (use.path !== undefined)
      return await this.describe(use.path, { sha256: use.sha256 }, signal);
    const { path, id } = this.named(use.id ?? "");
    // Read again, by its hash: what lies at the path may have changed since it was loaded.
    const { sha256 } = this.named(id);
    return await this.describe(path, { id, sha256: use.sha256 ?? sha256 }, signal);
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
