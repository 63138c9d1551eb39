import { stat } from "node:fs/promises";
import { join } from "node:path";
import { MergeFault } from "../fault.ts";
import type { DirRef } from "cjm-substrate/worker";
import { hashFile } from "./hashing.ts";

/** A folder given by its path, or by a reference that also says what it must hold. */
export type FolderInput = string | DirRef;

export function pathOf(input: FolderInput): string {
  return typeof input === "string" ? input : input.data.path;
}

/**
 * Content hashes of the named files of an input. A reference is believed here, because its hash is
 * what names it; {@link verifyFiles} checks it before anything is made from the files.
 */
export async function inputHashes(
  input: FolderInput,
  names: readonly string[],
  signal: AbortSignal,
): Promise<Readonly<Record<string, string>>> {
  const entries: [string, string][] = [];
  for (const name of names) {
    const known = typeof input === "string" ? undefined : knownHash(input, name);
    entries.push([name, known ?? (await hashFile(join(pathOf(input), name), signal))]);
  }
  return Object.fromEntries(entries);
}

function knownHash(reference: DirRef, name: string): string {
  const found = reference.data.files.find((file) => file.name === name);
  if (found !== undefined) return found.sha256;
  const message = `The reference to ${reference.data.path} lists no ${name}`;
  throw new MergeFault("CAPABILITY_INPUT", "reference", message);
}

/** @throws {MergeFault} `FILE_INVALID` where a file is not what its reference says */
export async function verifyFiles(
  input: FolderInput,
  names: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  if (typeof input === "string") return;
  for (const name of names) {
    const path = join(pathOf(input), name);
    const [expected, found] = [knownHash(input, name), await hashFile(path, signal)];
    if (found === expected) continue;
    const details = { path, expected, found };
    throw new MergeFault("FILE_INVALID", "hash", `${path} is not what its reference says`, details);
  }
}

/** Remembers what files were before they were hashed: the hashes must be of the bytes merged. */
export class Witness {
  readonly #paths: readonly string[];
  readonly #before: readonly string[];

  private constructor(paths: readonly string[], before: readonly string[]) {
    this.#paths = paths;
    this.#before = before;
  }

  static async of(paths: readonly string[]): Promise<Witness> {
    return new Witness(paths, await fingerprints(paths));
  }

  /** @throws {MergeFault} `FILE_INVALID` if a file is not what it was */
  async requireUnchanged(): Promise<void> {
    const after = await fingerprints(this.#paths);
    const changed = this.#paths.find((_, i) => after[i] !== this.#before[i]);
    if (changed === undefined) return;
    const message = `${changed} changed while it was merged`;
    throw new MergeFault("FILE_INVALID", "changed", message, { path: changed });
  }
}

async function fingerprints(paths: readonly string[]): Promise<readonly string[]> {
  const stats = await Promise.all(paths.map((path) => stat(path, { bigint: true })));
  return stats.map(({ ino, size, mtimeNs }) => `${ino} ${size} ${mtimeNs}`);
}
