import { createHash, randomUUID } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { z } from "cjm-substrate/worker";

const bookSchema = z.record(z.string(), z.object({ mark: z.string(), sha256: z.string() }));

export interface HashOptions {
  readonly signal: AbortSignal;
  /** A fraction from 0 to 1. */
  readonly progress?: (share: number) => void;
}

/**
 * `sha256:<hex>` of a file; one that has not changed since (size, inode, time of change) is not read
 * again, also after a restart. A model takes a second per gigabyte.
 */
export async function hashFile(
  path: string,
  dataFolder: string,
  { signal, progress }: HashOptions,
): Promise<string> {
  const { size, ino, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
  const mark = `${size} ${ino} ${mtimeNs} ${ctimeNs}`;
  const file = join(dataFolder, "hashes.json");
  const book = await readBook(file);
  const known = book[path];
  if (known?.mark === mark) return known.sha256;
  const hash = createHash("sha256");
  let done = 0;
  for await (const chunk of createReadStream(path, { signal, highWaterMark: 1024 * 1024 })) {
    if (!Buffer.isBuffer(chunk)) continue;
    hash.update(chunk);
    done += chunk.byteLength;
    progress?.(done / Number(size));
  }
  const sha256 = `sha256:${hash.digest("hex")}`;
  await writeBook(file, { ...(await readBook(file)), [path]: { mark, sha256 } });
  return sha256;
}

async function readBook(file: string): Promise<z.output<typeof bookSchema>> {
  try {
    return bookSchema.parse(JSON.parse(await readFile(file, "utf8")));
  } catch {
    // A book that is not there or not readable costs one more reading.
    return {};
  }
}

async function writeBook(file: string, book: z.output<typeof bookSchema>): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  const partial = `${file}.${randomUUID()}`;
  await writeFile(partial, JSON.stringify(book));
  await rename(partial, file);
}
