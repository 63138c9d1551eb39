import { existsSync } from "node:fs";
import { mkdir, open, readFile, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { CjmError } from "../errors/index.ts";
import { sha256 } from "../util/canonical-json.ts";
import { replaceFile } from "../util/replace-file.ts";
import type { StoredValue } from "./records.ts";

/** Longest JSON text that is kept in its row, in UTF-8 bytes. */
export const INLINE_RESULT_BYTES = 256 * 1024;

/** Large JSON values by content, in `<data_dir>/results/<first two digits>/<hash>.json`. */
export class ResultFiles {
  readonly #folder: string;

  constructor(dataDir: string) {
    this.#folder = join(dataDir, "results");
  }

  /** The value as it is kept in its row; undefined where it is too large for one. */
  inline(value: unknown): StoredValue | undefined {
    const json = JSON.stringify(value) ?? "null";
    return Buffer.byteLength(json) <= INLINE_RESULT_BYTES ? { kind: "inline", json } : undefined;
  }

  /**
   * Makes a value ready to be staged: as text if it is small, else as a file that is on disk, fsync
   * included, before this resolves. `undefined` is stored as null.
   */
  async store(value: unknown): Promise<StoredValue> {
    const json = JSON.stringify(value) ?? "null";
    if (Buffer.byteLength(json) <= INLINE_RESULT_BYTES) return { kind: "inline", json };
    const hash = sha256(json);
    await this.#write(this.path(hash), json);
    return { kind: "file", hash };
  }

  /** As {@link load}; of a body that retention has removed, only a tag with its hash. */
  async show(stored: StoredValue): Promise<unknown> {
    if (stored.kind === "inline" || existsSync(this.path(stored.hash)))
      return await this.load(stored);
    return { __wire__: "result.removed", data: { sha256: stored.hash } };
  }

  /** @throws {CjmError} `DATABASE_CORRUPT` if the file is missing or is not what was stored. */
  async load(stored: StoredValue): Promise<unknown> {
    if (stored.kind === "inline") return JSON.parse(stored.json);
    const path = this.path(stored.hash);
    const json = await readFile(path, "utf8").catch((cause: unknown) => {
      throw new CjmError("DATABASE_CORRUPT", `The stored result ${path} cannot be read`, { cause });
    });
    if (sha256(json) !== stored.hash) {
      throw new CjmError("DATABASE_CORRUPT", `The stored result ${path} is not what was written`);
    }
    return JSON.parse(json);
  }

  /** Removes the body of a result; its hash stays where it is recorded. */
  async remove(hash: string): Promise<void> {
    await rm(this.path(hash), { force: true });
  }

  /** Where the body of this hash lies. */
  path(hash: string): string {
    const hex = hash.slice("sha256:".length);
    if (!/^sha256:[0-9a-f]{64}$/u.test(hash)) throw new TypeError(`Not a content hash: ${hash}`);
    return join(this.#folder, hex.slice(0, 2), `${hex}.json`);
  }

  async #write(path: string, json: string): Promise<void> {
    if (await hasSize(path, Buffer.byteLength(json))) return;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await replaceFile(path, json);
    // The folder of the hash's first digits may be new too.
    await using folder = await open(this.#folder, "r");
    await folder.sync();
  }
}

async function hasSize(path: string, bytes: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined);
  return found?.size === bytes;
}
