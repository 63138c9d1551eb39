import { constants } from "node:fs";
import { copyFile, link, mkdir, readdir, readFile, rm, stat, utimes } from "node:fs/promises";
import { dirname, join } from "node:path";
import { dirRef, z, type DirRef } from "cjm-substrate/worker";
import { syncPath } from "../safetensors/writer.ts";
import { Staging } from "./staging.ts";

const ENTRY_NAME = "entry.json";
const CONTENT_NAME = "content";

const entrySchema = z.object({
  recipe_hash: z.string(),
  sha256: z.string(),
  files: z.array(
    z.object({ name: z.string(), size: z.number(), sha256: z.string(), modified_ms: z.number() }),
  ),
  /** What the action answered beside the reference. */
  answer: z.record(z.string(), z.unknown()),
});
type Entry = z.output<typeof entrySchema>;

export interface CacheHit {
  readonly reference: DirRef;
  readonly answer: Readonly<Record<string, unknown>>;
}

/** The part of the configuration that bounds what is kept. */
export interface CacheLimits {
  readonly cache_entries: number;
  readonly cache_mb: number;
}

/**
 * Results by recipe hash, kept under the capability's own folder as hard links: an entry costs no
 * space while the host still holds the result.
 */
export class ResultCache {
  readonly #root: string;
  readonly #limits: CacheLimits;

  constructor(dataFolder: string, limits: CacheLimits) {
    this.#root = join(dataFolder, "results");
    this.#limits = limits;
  }

  /**
   * Puts a result of an earlier call into `parent`, if there is one whose files are untouched.
   * A damaged entry is removed and counts as absent.
   */
  async take(recipeHash: string, parent: string, name: string): Promise<CacheHit | undefined> {
    const folder = this.#folder(recipeHash);
    const entry = await readEntry(folder);
    if (entry === undefined) return undefined;
    if (!(await isIntact(join(folder, CONTENT_NAME), entry))) {
      await rm(folder, { recursive: true, force: true });
      return undefined;
    }
    await using staging = await Staging.open(parent, name);
    for (const file of entry.files) {
      await linkOrCopy(join(folder, CONTENT_NAME, file.name), join(staging.folder, file.name));
    }
    const path = await staging.commit();
    const now = new Date();
    await utimes(join(folder, ENTRY_NAME), now, now);
    const files = entry.files.map(({ name: file, size, sha256 }) => ({ name: file, size, sha256 }));
    return {
      reference: { __wire__: "dir.ref", data: { path, sha256: entry.sha256, files } },
      answer: entry.answer,
    };
  }

  /** Keeps a result for the next call with the same recipe hash. */
  async keep(recipeHash: string, reference: DirRef, answer: CacheHit["answer"]): Promise<void> {
    if (this.#limits.cache_entries === 0 || this.#limits.cache_mb === 0) return;
    const folder = this.#folder(recipeHash);
    await rm(folder, { recursive: true, force: true });
    await mkdir(this.#root, { recursive: true });
    await using staging = await Staging.open(this.#root, folder.slice(this.#root.length + 1));
    const content = join(staging.folder, CONTENT_NAME);
    const files = [];
    for (const file of reference.data.files) {
      const path = join(content, file.name);
      await mkdir(dirname(path), { recursive: true });
      await linkOrCopy(join(reference.data.path, file.name), path);
      files.push({ ...file, modified_ms: (await stat(path)).mtimeMs });
    }
    syncPath(content);
    const entry: Entry = {
      recipe_hash: recipeHash,
      sha256: reference.data.sha256,
      files,
      answer: { ...answer },
    };
    staging.write(ENTRY_NAME, JSON.stringify(entry));
    await staging.commit();
    await this.#evict();
  }

  #folder(recipeHash: string): string {
    return join(this.#root, recipeHash.replace("sha256:", ""));
  }

  /** Removes the entries that were used longest ago, until both limits hold. */
  async #evict(): Promise<void> {
    const names = (await readdir(this.#root)).filter((name) => !name.startsWith("."));
    const used = await Promise.all(
      names.map(async (name) => {
        const found = await stat(join(this.#root, name, ENTRY_NAME)).catch(() => undefined);
        const entry = await readEntry(join(this.#root, name));
        const bytes = entry?.files.reduce((sum, { size }) => sum + size, 0) ?? 0;
        return { name, usedMs: found?.mtimeMs ?? 0, bytes };
      }),
    );
    let total = 0;
    for (const [at, { name, bytes }] of used.sort((a, b) => b.usedMs - a.usedMs).entries()) {
      total += bytes;
      const isKept = at < this.#limits.cache_entries && total <= this.#limits.cache_mb * 1e6;
      if (!isKept) await rm(join(this.#root, name), { recursive: true, force: true });
    }
  }
}

async function readEntry(folder: string): Promise<Entry | undefined> {
  const text = await readFile(join(folder, ENTRY_NAME), "utf8").catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    return entrySchema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

/** Size and time of change witness a file; where they do not agree, its hash decides. */
async function isIntact(content: string, { files, sha256 }: Entry): Promise<boolean> {
  const stats = await Promise.all(
    files.map(({ name }) => stat(join(content, name)).catch(() => undefined)),
  );
  if (stats.some((found) => found === undefined)) return false;
  const isUntouched = files.every(
    ({ size, modified_ms: modified }, i) =>
      stats[i]?.size === size && stats[i].mtimeMs === modified,
  );
  return isUntouched || (await dirRef(content)).data.sha256 === sha256;
}

/** A second name for the same bytes, or a copy where the file system has no links. */
export async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await link(from, to);
  } catch {
    // Another file system, or one without links.
    await copyFile(from, to, constants.COPYFILE_EXCL);
  }
}
