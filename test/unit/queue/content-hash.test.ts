import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { ContentHashes } from "../../../src/queue/content-hash.ts";
import { dirRef } from "../../../src/worker/file-ref.ts";
import { temporaryFolder } from "../../support/cli.ts";

test("a folder has the hash that a reference to it has", async () => {
  await using folder = await temporaryFolder();
  await mkdir(join(folder.path, "sub"));
  for (const [index, name] of ["b", "a", "sub/z", "sub/a", "ä", "Z"].entries()) {
    await writeFile(join(folder.path, name), `content ${index * 7}`.repeat(index));
  }
  const { data } = await dirRef(folder.path);
  expect(await new ContentHashes().folder(folder.path)).toBe(data.sha256);
});
