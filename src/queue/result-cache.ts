import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { CompositionNode } from "../composition/index.ts";
import { type DirRef, dirRefSchema, fileRefSchema } from "../protocol/index.ts";
import type { CacheEntry, ResultFiles, StorePort } from "../store/index.ts";
import { hashCanonical } from "../util/canonical-json.ts";
import { ContentHashes } from "./content-hash.ts";
import type { Executor } from "./executor.ts";

/** Raise it when a key is made of other things than before. */
const KEY_VERSION = 1;

export interface CacheParts {
  readonly store: StorePort;
  readonly results: ResultFiles;
  readonly executor: Executor;
}

/** What the cache has for one call. */
export interface CacheAnswer {
  readonly key: string;
  readonly hit: { readonly entry: CacheEntry; readonly result: unknown } | null;
}

/** Results of calls that would give the same again: same code, configuration and inputs. */
export class ResultCache {
  readonly #parts: CacheParts;
  readonly #hashes = new ContentHashes();

  constructor(parts: CacheParts) {
    this.#parts = parts;
  }

  /**
   * `control.force` finds nothing on purpose; `control.verify` reads the files of a result again
   * instead of trusting their size.
   *
   * @throws the system's error if a file that the call names cannot be read.
   */
  async find(
    node: CompositionNode,
    kwargs: Readonly<Record<string, unknown>>,
  ): Promise<CacheAnswer> {
    const { store, results } = this.#parts;
    const key = await this.keyOf(node, kwargs);
    const entry = node.control["force"] === true ? undefined : await store.cacheEntry(key);
    if (entry === undefined) return { key, hit: null };
    const result = await results.load(entry.result).catch(() => undefined);
    const isWhole =
      result !== undefined && (await this.#isThere(result, node.control["verify"] === true));
    return { key, hit: isWhole ? { entry, result } : null };
  }

  /** @throws the system's error if a file that the call names cannot be read. */
  async keyOf(node: CompositionNode, kwargs: Readonly<Record<string, unknown>>): Promise<string> {
    const { executor } = this.#parts;
    const { capability, codeHash } = executor.facts(node.instance);
    const { config, configSchema, inputSchema } = executor.inputs(node.instance, node);
    return hashCanonical({
      version: KEY_VERSION,
      capability,
      codeHash,
      action: node.action ?? null,
      task: node.task ?? null,
      method: node.method ?? null,
      config: await this.#hashes.replaced(config, configSchema),
      kwargs: await this.#hashes.replaced(kwargs, inputSchema),
    });
  }

  /** Whether every file and folder of a result is still there as it was. */
  async #isThere(value: unknown, isVerified: boolean): Promise<boolean> {
    if (typeof value !== "object" || value === null) return true;
    const file = fileRefSchema.safeParse(value);
    if (file.success) {
      const { path, size, sha256 } = file.data.data;
      if (!(await hasSize(path, size))) return false;
      return !isVerified || (await this.#hashes.file(path)) === sha256;
    }
    const folder = dirRefSchema.safeParse(value);
    if (folder.success) return await this.#isFolderThere(folder.data, isVerified);
    for (const member of Object.values(value)) {
      if (!(await this.#isThere(member, isVerified))) return false;
    }
    return true;
  }

  async #isFolderThere({ data }: DirRef, isVerified: boolean): Promise<boolean> {
    for (const { name, size } of data.files) {
      if (!(await hasSize(join(data.path, name), size))) return false;
    }
    return !isVerified || (await this.#hashes.folder(data.path)) === data.sha256;
  }
}

async function hasSize(path: string, size: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.isFile() === true && found.size === size;
}
