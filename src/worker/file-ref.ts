import { createHash } from "node:crypto";
import { constants } from "node:fs";
import { lstat, open, readdir, type FileHandle } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { CjmError } from "../errors/index.ts";
import type { DirRef, FileRef } from "../protocol/index.ts";
import { compact } from "../util/compact.ts";

/** What a file is by content. */
interface Content {
  readonly size: number;
  readonly sha256: string;
}

/** Neither follow a link nor wait for the writer of a pipe. */
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
const CHUNK_BYTES = 1024 * 1024;

/**
 * A reference to a file: its bytes are on disk and hashed when this resolves.
 *
 * The file must not change any more. Files that a call returns belong into `call.outputFolder`.
 *
 * @throws {CjmError} `FILE_INVALID` for a link, for anything but a regular file, and for a file that
 * changes while it is read.
 */
export async function fileRef(path: string, mediaType?: string): Promise<FileRef> {
  const absolute = resolve(path);
  const content = await readContent(absolute);
  await syncFolder(dirname(absolute));
  return {
    __wire__: "file.ref",
    data: compact({ path: absolute, ...content, media_type: mediaType }),
  };
}

/**
 * A reference to a folder of regular files, however deep; empty folders do not count.
 *
 * Its hash is that of the lines `"<sha256> <size> <name>\n"` in the order of their UTF-16 code
 * units, hashes in the form `sha256:<hex>`; names are relative with `/`. `files` is sorted by name.
 *
 * @throws {CjmError} `FILE_INVALID` as {@link fileRef}, and for a name with a line break.
 */
export async function dirRef(path: string): Promise<DirRef> {
  const absolute = resolve(path);
  if (!(await lstat(absolute)).isDirectory()) throw invalid(absolute, "is not a folder");
  const names = (await filesBelow(absolute, "")).sort();
  const files = [];
  for (const name of names) files.push({ name, ...(await readContent(join(absolute, name))) });
  for (const folder of foldersOf(names)) await syncFolder(join(absolute, folder));
  const lines = files.map(({ name, size, sha256 }) => `${sha256} ${size} ${name}\n`).sort();
  const hash = createHash("sha256").update(lines.join("")).digest("hex");
  return { __wire__: "dir.ref", data: { path: absolute, sha256: `sha256:${hash}`, files } };
}

async function filesBelow(root: string, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await readdir(join(root, prefix), { withFileTypes: true })) {
    const name = `${prefix}${entry.name}`;
    if (/[\n\r]/u.test(name)) throw invalid(join(root, name), "has a line break in its name");
    if (entry.isDirectory()) names.push(...(await filesBelow(root, `${name}/`)));
    else names.push(name);
  }
  return names;
}

async function readContent(path: string): Promise<Content> {
  await using file = await openRegular(path);
  const before = await file.stat({ bigint: true });
  const sha256 = await hashOpen(file);
  await file.sync();
  const after = await file.stat({ bigint: true });
  if (before.size !== after.size || before.mtimeNs !== after.mtimeNs) {
    throw invalid(path, "changed while it was read");
  }
  return { size: Number(after.size), sha256 };
}

/** The folder itself, and each folder in it that holds a file. */
function foldersOf(names: readonly string[]): ReadonlySet<string> {
  return new Set(["", ...names.map((name) => dirname(name))]);
}

/** Keeps the names. Some file systems refuse it; the content is safe all the same. */
async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync().catch(() => undefined);
}

async function openRegular(path: string): Promise<FileHandle> {
  const file = await openWithoutFollowing(path);
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw invalid(path, "is not a regular file");
}

async function openWithoutFollowing(path: string): Promise<FileHandle> {
  try {
    return await open(path, OPEN_FLAGS);
  } catch (error) {
    // ELOOP: a link; ENXIO: a socket.
    const code = error instanceof Error && "code" in error ? error.code : "";
    if (code === "ELOOP" || code === "ENXIO") throw invalid(path, "is a link or a socket", error);
    throw error;
  }
}

/** `sha256:<hex>` of an open file, read from its start. */
export async function hashOpen(file: FileHandle): Promise<string> {
  const hash = createHash("sha256");
  const buffer = Buffer.allocUnsafe(CHUNK_BYTES);
  for (let position = 0; ;) {
    const { bytesRead } = await file.read(buffer, 0, CHUNK_BYTES, position);
    if (bytesRead === 0) return `sha256:${hash.digest("hex")}`;
    hash.update(buffer.subarray(0, bytesRead));
    position += bytesRead;
  }
}

function invalid(path: string, what: string, cause?: unknown): CjmError {
  return new CjmError("FILE_INVALID", `${path} ${what}`, { cause });
}
