import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join, relative, sep } from "node:path";
import { pipeline } from "node:stream/promises";
import { alternatives, isPathPlace, memberOf, propertyOf } from "../protocol/index.ts";
import { isRecord } from "../util/record.ts";

/** Files whose hash is remembered; the oldest are forgotten. */
const MAX_REMEMBERED = 10_000;
/** A file changed this recently may change again without a new time stamp. */
const SETTLE_MS = 2_000;

/** Hashes of files and folders by content, remembered by what a change of them would change. */
export class ContentHashes {
  readonly #known = new Map<string, string>();

  /** @throws the system's error if the file cannot be read. */
  async file(path: string): Promise<string> {
    const { dev, ino, size, mtimeNs, ctimeNs, mtimeMs } = await stat(path, { bigint: true });
    const identity = [dev, ino, size, mtimeNs, ctimeNs].join(" ");
    const known = this.#known.get(identity);
    if (known !== undefined) return known;
    const hash = createHash("sha256");
    await pipeline(createReadStream(path), hash);
    const content = `sha256:${hash.digest("hex")}`;
    if (Date.now() - Number(mtimeMs) > SETTLE_MS) this.#remember(identity, content);
    return content;
  }

  /** As a `DirRef` has it: lines `<sha256> <size> <name>` in the order of their UTF-16 code units. */
  async folder(path: string): Promise<string> {
    const entries = await readdir(path, { recursive: true, withFileTypes: true });
    const lines: string[] = [];
    for (const entry of entries) {
      if (!entry.isFile()) continue;
      const file = join(entry.parentPath, entry.name);
      const name = relative(path, file).split(sep).join("/");
      lines.push(`${await this.file(file)} ${(await stat(file)).size} ${name}\n`);
    }
    const hash = createHash("sha256").update(lines.toSorted().join("")).digest("hex");
    return `sha256:${hash}`;
  }

  /**
   * The value with every path that its schema calls a file or folder, and every reference to one,
   * replaced by the hash of what is there.
   */
  async replaced(value: unknown, schema: unknown): Promise<unknown> {
    const options = alternatives(schema);
    if (typeof value === "string") {
      if (!isPathPlace(options)) return value;
      const isFolder = (await stat(value)).isDirectory();
      return isFolder ? { $dir: await this.folder(value) } : { $file: await this.file(value) };
    }
    if (Array.isArray(value)) {
      const items: unknown[] = [];
      for (const item of value) items.push(await this.replaced(item, memberOf(options, "items")));
      return items;
    }
    if (!isRecord(value)) return value;
    const { data } = value;
    if ("__wire__" in value && isRecord(data) && typeof data["sha256"] === "string") {
      return { $content: data["sha256"] };
    }
    const members: Record<string, unknown> = {};
    for (const [key, member] of Object.entries(value)) {
      members[key] = await this.replaced(member, propertyOf(options, key));
    }
    return members;
  }

  #remember(identity: string, hash: string): void {
    if (this.#known.size >= MAX_REMEMBERED) {
      const [oldest] = this.#known.keys();
      if (oldest !== undefined) this.#known.delete(oldest);
    }
    this.#known.set(identity, hash);
  }
}
