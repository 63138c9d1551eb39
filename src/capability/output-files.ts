import { chmod, lstat, mkdir, open, realpath, rename, rm } from "node:fs/promises";
import { basename, dirname, join, sep } from "node:path";
import { CjmError } from "../errors/index.ts";
import { type DirRef, dirRefSchema, type FileRef, fileRefSchema } from "../protocol/index.ts";
import { isRecord } from "../util/record.ts";

/** Where an attempt writes and where what it returned is kept. */
export interface OutputFolders {
  /** The only folder the attempt may return files from. */
  readonly attempt: string;
  /** Root of the adopted files, addressed by content; on the same file system. */
  readonly files: string;
}

/**
 * Moves every file and folder a result refers to into the host's keeping, read-only, and returns
 * the result with the adopted paths. Sizes are checked against the references; content is not read.
 *
 * @throws {CjmError} `OUTPUT_OUTSIDE_FOLDER` for a reference that leads out of the attempt's folder
 *   or to anything but regular files of the promised size.
 */
export async function adoptOutputs(result: unknown, folders: OutputFolders): Promise<unknown> {
  if (Array.isArray(result)) {
    const adopted: unknown[] = [];
    for (const item of result) adopted.push(await adoptOutputs(item, folders));
    return adopted;
  }
  if (!isRecord(result)) return result;
  const adoptedReference = await adoptReference(result, folders);
  if (adoptedReference !== undefined) return adoptedReference;
  const adopted: [string, unknown][] = [];
  for (const [key, member] of Object.entries(result)) {
    adopted.push([key, await adoptOutputs(member, folders)]);
  }
  // Not by assignment: a member that is named `__proto__` would be none.
  return Object.fromEntries(adopted);
}

/** Undefined for any other object; most results hold many, and no reference. */
async function adoptReference(
  result: Readonly<Record<string, unknown>>,
  folders: OutputFolders,
): Promise<FileRef | DirRef | undefined> {
  if (result["__wire__"] === undefined) return undefined;
  const file = fileRefSchema.safeParse(result);
  if (file.success) return await adoptFile(file.data, folders);
  const folder = dirRefSchema.safeParse(result);
  return folder.success ? await adoptFolder(folder.data, folders) : undefined;
}

async function adoptFile(ref: FileRef, folders: OutputFolders): Promise<FileRef> {
  const source = await insideAttempt(ref.data.path, folders);
  if (source === undefined) return ref;
  await requireRegular(source, ref.data.size);
  await chmod(source, 0o444);
  return { ...ref, data: { ...ref.data, path: await keep(source, ref.data.sha256, folders) } };
}

async function adoptFolder(ref: DirRef, folders: OutputFolders): Promise<DirRef> {
  const source = await insideAttempt(ref.data.path, folders);
  if (source === undefined) return ref;
  for (const { name, size } of ref.data.files) {
    const path = join(source, name);
    const parent = await realpath(dirname(path));
    if (parent !== source && !parent.startsWith(source + sep)) throw outside(path);
    await requireRegular(path, size);
    await chmod(path, 0o444);
  }
  return { ...ref, data: { ...ref.data, path: await keep(source, ref.data.sha256, folders) } };
}

/** The real path inside the attempt's folder; undefined for a reference that was adopted before. */
async function insideAttempt(path: string, folders: OutputFolders): Promise<string | undefined> {
  const real = await realpath(path).catch((cause: unknown) => {
    throw outside(path, cause);
  });
  // The worker makes its folder when it first writes to it, which may have been never.
  const attempt = await realpath(folders.attempt).catch(() => folders.attempt);
  if (real.startsWith(attempt + sep)) return real;
  // An upstream file handed through unchanged is already in the host's keeping.
  const files = await realpath(folders.files).catch(() => folders.files);
  if (real.startsWith(files + sep)) return undefined;
  throw outside(path);
}

async function requireRegular(path: string, size: number): Promise<void> {
  const stat = await lstat(path).catch((cause: unknown) => {
    throw outside(path, cause);
  });
  if (stat.isFile() && stat.size === size) return;
  throw new CjmError(
    "OUTPUT_OUTSIDE_FOLDER",
    `${path} is not a regular file of the promised ${size} bytes`,
  );
}

/** Renames into `<files>/<2 hex>/<hash>/<name>`; what is already kept under the hash stays. */
async function keep(source: string, hash: string, folders: OutputFolders): Promise<string> {
  const hex = hash.slice("sha256:".length);
  const home = join(folders.files, hex.slice(0, 2), hex);
  const target = join(home, basename(source));
  await mkdir(home, { recursive: true });
  const present = await lstat(target).catch(() => undefined);
  if (present === undefined) await rename(source, target);
  else await rm(source, { recursive: true, force: true });
  await syncFolder(home);
  return target;
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

function outside(path: string, cause?: unknown): CjmError {
  return new CjmError(
    "OUTPUT_OUTSIDE_FOLDER",
    `The call returned ${path}, which is not in the folder it was given for its files`,
    { cause },
  );
}
