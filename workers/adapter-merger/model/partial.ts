import { writeFileSync } from "node:fs";
import { mkdir, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { TensorReport } from "../engine/model-task.ts";
import { syncPath } from "../safetensors/writer.ts";

const KEPT_MAX = 4;

/**
 * The completed shards of an interrupted merge, by recipe hash, under the capability's own folder:
 * the folder of an attempt is gone when the next attempt begins.
 *
 * A shard counts only with its mark, which is written after the shard is on disk.
 */
export class PartialMerge {
  readonly folder: string;

  private constructor(folder: string) {
    this.folder = folder;
  }

  /** Opens the folder of a recipe and forgets the oldest ones of others. */
  static async open(dataFolder: string, recipeHash: string): Promise<PartialMerge> {
    const root = join(dataFolder, "partial");
    const name = recipeHash.replace("sha256:", "");
    await mkdir(join(root, name), { recursive: true });
    await forgetOldest(root, name);
    return new PartialMerge(join(root, name));
  }

  /** What an earlier attempt reported about a shard that it completed. */
  async completed(shard: string, sizeBytes: number): Promise<readonly TensorReport[] | undefined> {
    const found = await stat(join(this.folder, shard)).catch(() => undefined);
    const text = await readFile(this.#mark(shard), "utf8").catch(() => undefined);
    if (found === undefined || text === undefined || found.size !== sizeBytes) return undefined;
    try {
      // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- written by `complete`, by rename
      return JSON.parse(text) as readonly TensorReport[];
    } catch {
      return undefined;
    }
  }

  /** Where a shard is built; what a killed attempt left there is removed. */
  async start(shard: string): Promise<string> {
    const path = join(this.folder, `${shard}.building`);
    await rm(path, { force: true });
    await rm(this.#mark(shard), { force: true });
    return path;
  }

  async complete(shard: string, reports: readonly TensorReport[]): Promise<void> {
    const building = join(this.folder, `${shard}.building`);
    syncPath(building);
    await rename(building, join(this.folder, shard));
    const mark = `${this.#mark(shard)}.building`;
    writeFileSync(mark, JSON.stringify(reports));
    syncPath(mark);
    await rename(mark, this.#mark(shard));
    syncPath(this.folder);
  }

  async remove(): Promise<void> {
    await rm(this.folder, { recursive: true, force: true });
  }

  #mark(shard: string): string {
    return join(this.folder, `${shard}.done.json`);
  }
}

async function forgetOldest(root: string, current: string): Promise<void> {
  const names = (await readdir(root)).filter((name) => name !== current);
  const aged = await Promise.all(
    names.map(async (name) => ({ name, usedMs: (await stat(join(root, name))).mtimeMs })),
  );
  const stale = aged.sort((a, b) => b.usedMs - a.usedMs).slice(KEPT_MAX - 1);
  for (const { name } of stale) await rm(join(root, name), { recursive: true, force: true });
}
