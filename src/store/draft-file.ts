import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { randomHex } from "../util/ids.ts";

/**
 * Replaces a file of this user alone by rename; on disk, its name included, when this resolves. A
 * write that fails leaves nothing: half a file would keep the space that was missing.
 */
export async function replaceFile(path: string, content: string): Promise<void> {
  const draft = `${path}.${randomHex(4)}.new`;
  try {
    {
      await using file = await open(draft, "wx", 0o600);
      await file.writeFile(content);
      await file.sync();
    }
    await rename(draft, path);
  } catch (error) {
    await rm(draft, { force: true });
    throw error;
  }
  await using folder = await open(dirname(path), "r");
  await folder.sync();
}
