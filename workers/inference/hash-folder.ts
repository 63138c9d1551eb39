import { createHash } from "node:crypto";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { hashFile, type HashOptions } from "./hash-book.ts";

/** Content of a folder as a `dir.ref` has it; files that have not changed are not read again. */
export async function hashFolder(
  folder: string,
  dataFolder: string,
  options: HashOptions,
): Promise<string> {
  const lines: string[] = [];
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    if (entry.isDirectory()) continue;
    const path = join(entry.parentPath, entry.name);
    const name = path.slice(folder.length + 1).replaceAll("\\", "/");
    const { size } = await stat(path);
    lines.push(`${await hashFile(path, dataFolder, options)} ${size} ${name}\n`);
  }
  return `sha256:${createHash("sha256").update(lines.sort().join("")).digest("hex")}`;
}
