import { createHash } from "node:crypto";
import { constants, createReadStream } from "node:fs";
import { chmod, copyFile, link, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { dirRef, type DirRef } from "cjm-substrate/worker";
import { AdapterInvalidError } from "./faults.ts";

/** A file of an adapter by content. */
export type FileEntry = DirRef["data"]["files"][number];

/** What is wrong with the files of one adapter. */
export interface Finding {
  readonly state: "ok" | "missing" | "changed";
  readonly detail: string;
}

const READ_ONLY = 0o444;

/** The files of adapters, each folder named by its content and moved there only when complete. */
export class ContentFiles {
  readonly #adapters: string;
  readonly #incoming: string;

  constructor(folder: string) {
    this.#adapters = join(folder, "adapters");
    this.#incoming = join(folder, "incoming");
  }

  /** Where the files of this content are, once they are. */
  path(hash: string): string {
    const hex = hexOf(hash);
    return join(this.#adapters, hex.slice(0, 2), hex);
  }

  /**
   * Copies a folder in: its own bytes, on disk, hashed again. Whoever calls this has noted the hash
   * and discards it if this throws.
   *
   * @throws {AdapterInvalidError} if what was copied is not `source.data.sha256`.
   */
  async take(source: DirRef, signal: AbortSignal): Promise<void> {
    const { path, sha256, files } = source.data;
    const draft = join(this.#incoming, hexOf(sha256));
    await mkdir(draft, { recursive: true });
    await copyFiles({ from: path, to: draft, files }, signal, copyOwn);
    const copied = await dirRef(draft);
    if (copied.data.sha256 !== sha256) {
      const message = `${path} is not what its reference says: ${copied.data.sha256}, not ${sha256}`;
      throw new AdapterInvalidError(message, { path, expected: sha256 });
    }
    const target = this.path(sha256);
    await mkdir(dirname(target), { recursive: true });
    await rename(draft, target);
    for (const folder of [dirname(target), this.#adapters]) await syncFolder(folder);
  }

  /** Removes what a copy that did not get its record has left. */
  async discard(hash: string): Promise<void> {
    for (const folder of [join(this.#incoming, hexOf(hash)), this.path(hash)]) {
      await rm(folder, { recursive: true, force: true });
    }
    await syncFolder(this.#adapters);
  }

  /** Puts the files of an adapter into a new folder, as links where that is possible. */
  async handOut(hash: string, files: readonly FileEntry[], to: string): Promise<DirRef> {
    await copyFiles({ from: this.path(hash), to, files }, undefined, linkOrCopy);
    const given = await dirRef(to);
    if (given.data.sha256 === hash) return given;
    throw new AdapterInvalidError(`The files of ${hash} are not what was stored`, { hash });
  }

  /** Reads every file of an adapter and says what is wrong. */
  async verify(hash: string, files: readonly FileEntry[]): Promise<Finding> {
    const folder = this.path(hash);
    for (const { name, size, sha256 } of files) {
      const path = join(folder, name);
      const found = await stat(path).catch(() => undefined);
      if (found === undefined) return { state: "missing", detail: `${path} is not there` };
      if (found.size !== size) {
        return { state: "changed", detail: `${path} has ${found.size} bytes instead of ${size}` };
      }
      if ((await hashFile(path)) !== sha256) {
        return { state: "changed", detail: `${path} has another content` };
      }
    }
    const known = new Set(files.map(({ name }) => name));
    const extra = (await filesBelow(folder)).filter((name) => !known.has(name));
    if (extra.length === 0) return { state: "ok", detail: "" };
    return { state: "changed", detail: `${folder} has files too many: ${extra.join(", ")}` };
  }

  /** Every content there is a folder of. */
  async hashes(): Promise<string[]> {
    const found: string[] = [];
    for (const prefix of await readdir(this.#adapters).catch(() => [])) {
      for (const hex of await readdir(join(this.#adapters, prefix))) found.push(`sha256:${hex}`);
    }
    return found;
  }
}

interface Copying {
  readonly from: string;
  readonly to: string;
  readonly files: readonly FileEntry[];
}

async function copyFiles(
  { from, to, files }: Copying,
  signal: AbortSignal | undefined,
  copy: (source: string, target: string) => Promise<void>,
): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const { name } of files) {
    signal?.throwIfAborted();
    const target = join(to, name);
    await mkdir(dirname(target), { recursive: true });
    await copy(join(from, name), target);
  }
}

/** Blocks are shared where the file system can; a change of the source is none of the copy. */
async function copyOwn(source: string, target: string): Promise<void> {
  await copyFile(source, target, constants.COPYFILE_EXCL | constants.COPYFILE_FICLONE);
  await chmod(target, READ_ONLY);
}

async function linkOrCopy(source: string, target: string): Promise<void> {
  await link(source, target).catch(() => copyOwn(source, target));
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => !entry.isDirectory())
    .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
}

async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return `sha256:${hash.digest("hex")}`;
}

async function syncFolder(path: string): Promise<void> {
  await using folder = await open(path, "r");
  await folder.sync();
}

function hexOf(hash: string): string {
  return hash.slice("sha256:".length);
}
