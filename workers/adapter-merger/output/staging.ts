import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { mkdir, readdir, rename, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { MergeFault } from "../fault.ts";
import { syncPath } from "../safetensors/writer.ts";

/**
 * A folder under construction: it takes its final name only when it is complete and on disk.
 * Leaving the scope without {@link commit} removes it. Own it with `await using`.
 */
export class Staging implements AsyncDisposable {
  readonly folder: string;
  readonly #target: string;
  #isCommitted = false;

  private constructor(folder: string, target: string) {
    this.folder = folder;
    this.#target = target;
  }

  static async open(parent: string, name: string): Promise<Staging> {
    const folder = join(parent, `.partial-${randomBytes(6).toString("hex")}`);
    await mkdir(folder, { recursive: true });
    return new Staging(folder, join(parent, name));
  }

  /** Writes a text file that is part of the result. */
  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text, { flag: "wx" });
  }

  /** Puts every file on disk and gives the folder its name; returns that path. */
  async commit(): Promise<string> {
    for (const name of await readdir(this.folder)) syncPath(join(this.folder, name));
    syncPath(this.folder);
    await rename(this.folder, this.#target);
    this.#isCommitted = true;
    syncPath(join(this.#target, ".."));
    return this.#target;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#isCommitted) await rm(this.folder, { recursive: true, force: true });
  }
}

/** @throws {MergeFault} `CAPABILITY_RESOURCE` if the file system of `folder` has too little room */
export async function requireDisk(folder: string, bytes: number): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  const free = bavail * bsize;
  if (free >= bytes) return;
  const [needed, available] = [bytes, free].map((value) => Math.ceil(value / 1e6));
  const message = `The output needs ${needed} MB of disk; ${available} MB are free at ${folder}`;
  const details = { shortfall: { resource: "disk_mb", needed, available } };
  throw new MergeFault("CAPABILITY_RESOURCE", "disk", message, details);
}
