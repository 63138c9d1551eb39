import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readFile, rm, stat, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { adoptOutputs, type OutputFolders } from "../../../src/capability/output-files.ts";
import { failure } from "./support.ts";

let root = "";
let folders: OutputFolders;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "cjm-o-"));
  folders = { attempt: join(root, "attempt"), files: join(root, "files") };
  await mkdir(folders.attempt);
  await mkdir(folders.files);
});
afterEach(() => rm(root, { recursive: true, force: true }));

async function reference(path: string, content: string): Promise<Record<string, unknown>> {
  await writeFile(path, content);
  const sha256 = `sha256:${createHash("sha256").update(content).digest("hex")}`;
  return { __wire__: "file.ref", data: { path, size: content.length, sha256 } };
}

test("a file anywhere in a result moves into the host's keeping, read-only", async () => {
  const ref = await reference(join(folders.attempt, "one.txt"), "hello");
  const result = { items: [{ label: "first", file: ref }], plain: { __wire__: "other", data: 1 } };
  const adopted = await adoptOutputs(result, folders);
  expect(adopted).toMatchObject({ items: [{ label: "first" }], plain: result.plain });
  const { path } = (adopted as { items: [{ file: { data: { path: string } } }] }).items[0].file
    .data;
  expect(path.startsWith(folders.files)).toBe(true);
  expect(await readFile(path, "utf8")).toBe("hello");
  expect((await stat(path)).mode & 0o777).toBe(0o444);
});

test("a file outside, by link or by name, or of another size, is refused", async () => {
  const outside = await reference(join(root, "secret.txt"), "secret");
  expect(await failure(adoptOutputs(outside, folders))).toMatchObject({
    code: "OUTPUT_OUTSIDE_FOLDER",
  });
  const link = join(folders.attempt, "link.txt");
  await symlink(join(root, "secret.txt"), link);
  const linked = { ...outside, data: { ...(outside["data"] as object), path: link } };
  expect(await failure(adoptOutputs(linked, folders))).toMatchObject({
    code: "OUTPUT_OUTSIDE_FOLDER",
  });
  const short = await reference(join(folders.attempt, "short.txt"), "short");
  const lying = { ...short, data: { ...(short["data"] as object), size: 6 } };
  expect(await failure(adoptOutputs(lying, folders))).toMatchObject({
    code: "OUTPUT_OUTSIDE_FOLDER",
  });
});
