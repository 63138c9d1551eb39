import { realpath, stat, writeFile } from "node:fs/promises";
import { replaceFile } from "../util/replace-file.ts";

/**
 * Writes a file where the user wants it: whole or not at all, with the rights it had, and through a
 * link. What is no regular file, such as `/dev/stdout`, is written to and never replaced.
 */
export async function writeUserFile(path: string, text: string): Promise<void> {
  const target = await realpath(path).catch(() => path);
  const there = await stat(target).catch(() => undefined);
  if (there !== undefined && !there.isFile()) await writeFile(target, text);
  else await replaceFile(target, text, (there?.mode ?? 0o644) & 0o777);
}
