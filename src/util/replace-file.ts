import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { randomHex } from "./ids.ts";

/**
 * Replaces a file by rename: a reader, or a crash at any moment, sees the old content or the new. On
 * disk, its name included, when this resolves. A write that fails leaves nothing: half a file would
 * keep the space that was missing.
 *
 * @throws the system's error with its `code`, and a message that names the file.
 */
export async function replaceFile(
  path: string,
  content: string | Uint8Array,
  mode = 0o600,
): Promise<void> {
  const draft = `${path}.${randomHex(4)}.new`;
  try {
    {
      await using file = await open(draft, "wx", mode);
      await file.writeFile(content);
      await file.sync();
    }
    await rename(draft, path);
    await using folder = await open(dirname(path), "r");
    await folder.sync();
  } catch (error) {
    await rm(draft, { force: true }).catch(() => undefined);
    throw named(path, error);
  }
}

/** A full disk does not say what was to be written. */
function named(path: string, error: unknown): unknown {
  if (!(error instanceof Error)) return error;
  const { code } = error as NodeJS.ErrnoException;
  return Object.assign(new Error(`${path} cannot be written: ${error.message}`, { cause: error }), {
    code,
  });
}
