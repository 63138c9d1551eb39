import { chownSync, lstatSync, mkdirSync, mkdtempSync, opendirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { NOBODY, type Identity } from "./policy.ts";

/** A working folder outside the jail, and what to do when the run is over. */
export interface WorkFolder extends Disposable {
  readonly path: string;
}

/** Folders that are kept between runs, by name; one run at a time uses one. */
export class Workspaces {
  readonly #parent: string;
  readonly #identity: Identity;
  readonly #users = new Map<string, Promise<void>>();

  constructor(parent: string, identity: Identity) {
    this.#parent = parent;
    this.#identity = identity;
  }

  /** Waits for the runs before; disposing lets the next one in and keeps the folder. */
  async open(name: string, signal: AbortSignal): Promise<WorkFolder> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#users.get(name) ?? Promise.resolve();
    const mine = before.then(() => promise);
    this.#users.set(name, mine);
    const release = (): void => {
      resolve();
      if (this.#users.get(name) === mine) this.#users.delete(name);
    };
    try {
      await before;
      signal.throwIfAborted();
      return { path: this.#make(name), [Symbol.dispose]: release };
    } catch (error) {
      release();
      throw error;
    }
  }

  #make(name: string): string {
    const path = join(this.#parent, name);
    // Closed to others at the parent; open here, because the jail's first process is not nobody.
    mkdirSync(this.#parent, { recursive: true, mode: 0o700 });
    mkdirSync(path, { recursive: true, mode: 0o755 });
    if (this.#identity === "setuid") chownSync(path, NOBODY, NOBODY);
    return path;
  }
}

/** A folder for one run without isolation. */
export function temporaryWorkFolder(parent: string): WorkFolder {
  const path = mkdtempSync(join(parent, "work-"));
  return { path, [Symbol.dispose]: () => rmSync(path, { recursive: true, force: true }) };
}

/** Longest walk; a folder with more entries counts as full. */
const MAX_ENTRIES = 100_000;

/** Bytes below a folder that a guest writes to; follows no link, and stops once over `limit`. */
export function folderBytes(root: string, limit: number): number {
  const folders = [root];
  let bytes = 0;
  let entries = 0;
  // Grows while it is walked.
  for (const folder of folders) {
    for (const { path, isFolder, size } of entriesOf(folder)) {
      entries += 1;
      bytes += size;
      if (isFolder) folders.push(path);
    }
    if (bytes > limit || entries > MAX_ENTRIES) return Number.POSITIVE_INFINITY;
  }
  return bytes;
}

function* entriesOf(folder: string): Generator<{ path: string; isFolder: boolean; size: number }> {
  try {
    using listing = opendirSync(folder);
    for (let entry = listing.readSync(); entry !== null; entry = listing.readSync()) {
      const path = join(folder, entry.name);
      yield { path, isFolder: entry.isDirectory(), size: blocksOf(path) };
    }
  } catch {
    // Removed meanwhile.
  }
}

function blocksOf(path: string): number {
  return (lstatSync(path, { throwIfNoEntry: false })?.blocks ?? 0) * 512;
}
