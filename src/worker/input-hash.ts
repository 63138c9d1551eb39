import { mkdirSync } from "node:fs";
import { open, realpath } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { currentCall } from "./current-call.ts";
import { hashOpen } from "./file-ref.ts";

/** The Python SDK reads and writes the same table: a file is hashed once for both. */
const SCHEMA = `PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS input_hash_cache (
  path TEXT NOT NULL, mtime_ns INTEGER NOT NULL, size INTEGER NOT NULL, content_hash TEXT NOT NULL,
  PRIMARY KEY (path, mtime_ns, size))`;
const BUSY_TIMEOUT_MS = 5000;
/** A file changed this recently may change again without a new time stamp. */
const SETTLE_MS = 2000;

export interface HashInputOptions {
  /** @default `$CAPABILITY_DATA_DIR/input_hash_cache.db`, else `~/.cjm/input_hash_cache.db` */
  readonly cachePath?: string;
  /** Reads the file whatever is remembered, and remembers nothing. @default false */
  readonly skipCache?: boolean;
}

interface FileStat {
  readonly path: string;
  readonly mtimeNs: bigint;
  readonly size: bigint;
}

/**
 * `sha256:<hex>` of a file's content, remembered by path, modification time and size.
 *
 * Where the memory fails the file is read, and the log of the call has a warning.
 */
export async function hashInput(
  inputPath: string,
  { cachePath = defaultCachePath(), skipCache = false }: HashInputOptions = {},
): Promise<string> {
  const path = await realpath(inputPath);
  await using file = await open(path, "r");
  const { mtimeNs, mtimeMs, size } = await file.stat({ bigint: true });
  const stat = { path, mtimeNs, size };
  const known = skipCache ? undefined : await withCache(cachePath, (cache) => cache.find(stat));
  if (known !== undefined) return known;
  const hash = await hashOpen(file);
  const isSettled = Date.now() - Number(mtimeMs) > SETTLE_MS;
  if (!skipCache && isSettled) await withCache(cachePath, (cache) => cache.keep(stat, hash));
  return hash;
}

function defaultCachePath(): string {
  const folder = process.env["CAPABILITY_DATA_DIR"] ?? join(homedir(), ".cjm");
  return join(folder, "input_hash_cache.db");
}

interface HashCache {
  find(stat: FileStat): string | undefined;
  keep(stat: FileStat, hash: string): void;
}

async function withCache<T>(path: string, use: (cache: HashCache) => T): Promise<T | undefined> {
  try {
    // Loaded on use: most workers have no cache paths.
    const { DatabaseSync } = await import("node:sqlite");
    mkdirSync(dirname(path), { recursive: true });
    using database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
    database.exec(SCHEMA);
    return use({
      find({ path: file, mtimeNs, size }) {
        const row = database
          .prepare(
            "SELECT content_hash AS hash FROM input_hash_cache WHERE path = ? AND mtime_ns = ? AND size = ?",
          )
          .get(file, mtimeNs, size);
        return typeof row?.["hash"] === "string" ? row["hash"] : undefined;
      },
      keep({ path: file, mtimeNs, size }, hash) {
        database
          .prepare("INSERT OR REPLACE INTO input_hash_cache VALUES (?, ?, ?, ?)")
          .run(file, mtimeNs, size, hash);
      },
    });
  } catch (error) {
    currentCall()?.log.warning(`the cache of input hashes ${path} cannot be used`, error);
    return undefined;
  }
}
