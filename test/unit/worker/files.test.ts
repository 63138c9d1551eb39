import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, symlinkSync } from "node:fs";
import { rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import {
  cacheDirForConfig,
  dirRef,
  fileRef,
  hashInput,
  listCacheEntries,
  pruneCacheForInput,
} from "cjm-substrate/worker";
import { dirRefSchema, fileRefSchema } from "../../../src/protocol/index.ts";

const sha = (text: string): string => `sha256:${createHash("sha256").update(text).digest("hex")}`;

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cjm-test-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe("a file reference", () => {
  it("has the file's hash, size and media type", async () => {
    const path = join(folder, "a.txt");
    writeFileSync(path, "hello");
    const ref = await fileRef(path, "text/plain");
    expect(ref).toEqual({
      __wire__: "file.ref",
      data: { path, size: 5, sha256: sha("hello"), media_type: "text/plain" },
    });
    expect(fileRefSchema.parse(await fileRef(path)).data).not.toHaveProperty("media_type");
  });

  it("is refused for links, folders, pipes and missing files", async () => {
    writeFileSync(join(folder, "target"), "x");
    symlinkSync(join(folder, "target"), join(folder, "link"));
    execFileSync("mkfifo", [join(folder, "pipe")]);
    for (const name of ["link", "pipe", "."]) {
      await expect(fileRef(join(folder, name))).rejects.toMatchObject({ code: "FILE_INVALID" });
    }
    await expect(fileRef(join(folder, "missing"))).rejects.toMatchObject({ code: "ENOENT" });
  });
});

describe("a folder reference", () => {
  it("hashes the sorted lines of its files, however deep", async () => {
    mkdirSync(join(folder, "sub", "empty"), { recursive: true });
    writeFileSync(join(folder, "b"), "two");
    writeFileSync(join(folder, "sub", "a"), "one");
    const lines = [`${sha("two")} 3 b\n`, `${sha("one")} 3 sub/a\n`].sort();
    const ref = dirRefSchema.parse(await dirRef(folder));
    expect(ref.data).toEqual({
      path: folder,
      sha256: sha(lines.join("")),
      files: [
        { name: "b", size: 3, sha256: sha("two") },
        { name: "sub/a", size: 3, sha256: sha("one") },
      ],
    });
  });

  it("is refused for a link in it, a line break in a name, and for a file", async () => {
    writeFileSync(join(folder, "f"), "");
    await expect(dirRef(join(folder, "f"))).rejects.toMatchObject({ code: "FILE_INVALID" });
    writeFileSync(join(folder, "a\nb"), "");
    await expect(dirRef(folder)).rejects.toMatchObject({ code: "FILE_INVALID" });
    mkdirSync(join(folder, "d"));
    symlinkSync("/etc/hostname", join(folder, "d", "link"));
    await expect(dirRef(join(folder, "d"))).rejects.toMatchObject({ code: "FILE_INVALID" });
  });
});

describe("cache folders", () => {
  const subjectOf = (inputPath: string, action = "convert") => ({
    dataFolder: join(folder, "data"),
    inputPath,
    action,
  });
  const noFile = { hashInputContent: false, create: false } as const;

  it("lie where the Python SDK has them", async () => {
    const folderOf = async (inputPath: string, config: Record<string, unknown>) =>
      (await cacheDirForConfig(subjectOf(inputPath), config, noFile)).slice(folder.length);
    expect(
      await folderOf("https://host/a b.tar.gz?x=1", { rate: 1.0, deep: { b: [1e21], a: "é" } }),
    ).toMatchInlineSnapshot(`"/data/convert/a b.tar/83e47b_73399e44b6bc"`);
    expect(await folderOf("/music/My: song. ..mp3", {})).toMatchInlineSnapshot(
      `"/data/convert/My_ song/470f17_44136fa355b3"`,
    );
    expect(await folderOf(`/x/${"😀".repeat(120)}.wav`, {})).toMatchInlineSnapshot(
      `"/data/convert/😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀😀/283ed6_44136fa355b3"`,
    );
    expect(await folderOf("..", { n: -0, t: 1e-7 })).toMatchInlineSnapshot(
      `"/data/convert/_/5ec1f7_053beabc1b62"`,
    );
  });

  it("change with the content and with the config, and with nothing else", async () => {
    const a = join(folder, "in.wav");
    const moved = join(folder, "sub", "in.wav");
    mkdirSync(join(folder, "sub"));
    writeFileSync(a, "one");
    writeFileSync(moved, "one");
    const skip = { skipInputCache: true } as const;
    const first = await cacheDirForConfig(subjectOf(a), { x: 1, y: 2 }, skip);
    expect(await cacheDirForConfig(subjectOf(moved), { y: 2, x: 1 }, skip)).toBe(first);
    expect(await cacheDirForConfig(subjectOf(a), { x: 2, y: 2 }, skip)).not.toBe(first);
    appendFileSync(a, "two");
    expect(await cacheDirForConfig(subjectOf(a), { x: 1, y: 2 }, skip)).not.toBe(first);
    expect(await listCacheEntries(subjectOf(a))).toHaveLength(3);
  });

  it("are pruned but for those to keep, or only named", async () => {
    const subject = subjectOf("id-7");
    const options = { hashInputContent: false } as const;
    const kept = await cacheDirForConfig(subject, { n: 1 }, options);
    const doomed = await cacheDirForConfig(subject, { n: 2 }, options);
    expect(await pruneCacheForInput(subject, { keep: [kept], dryRun: true })).toEqual([doomed]);
    expect(await listCacheEntries(subject)).toHaveLength(2);
    expect(await pruneCacheForInput(subject, { keep: [kept] })).toEqual([doomed]);
    expect(await listCacheEntries(subject)).toEqual([kept]);
    expect(await listCacheEntries(subjectOf("other"))).toEqual([]);
  });

  it("cannot lie outside the folder of the capability", async () => {
    for (const action of ["..", ".", "a/b", ""]) {
      await expect(cacheDirForConfig(subjectOf("x", action), {}, noFile)).rejects.toThrow(
        TypeError,
      );
    }
  });
});

describe("the hash of an input", () => {
  it("is remembered until the file's time or size changes", async () => {
    const path = join(folder, "in");
    const cachePath = join(folder, "cache.db");
    writeFileSync(path, "one");
    utimesSync(path, 1000, 1000);
    expect(await hashInput(path, { cachePath })).toBe(sha("one"));
    writeFileSync(path, "two");
    utimesSync(path, 1000, 1000);
    expect(await hashInput(path, { cachePath })).toBe(sha("one"));
    expect(await hashInput(path, { cachePath, skipCache: true })).toBe(sha("two"));
    utimesSync(path, 2000, 2000);
    expect(await hashInput(path, { cachePath })).toBe(sha("two"));
  });

  it("is not remembered for a file that was written just now", async () => {
    const path = join(folder, "in");
    const cachePath = join(folder, "cache.db");
    writeFileSync(path, "one");
    await hashInput(path, { cachePath });
    const soon = new Date();
    writeFileSync(path, "two");
    utimesSync(path, soon, soon);
    expect(await hashInput(path, { cachePath })).toBe(sha("two"));
  });

  it("is computed where the cache cannot be used", async () => {
    const path = join(folder, "in");
    writeFileSync(path, "one");
    expect(await hashInput(path, { cachePath: join(path, "no-folder", "x.db") })).toBe(sha("one"));
    expect(readdirSync(folder)).toEqual(["in"]);
  });
});
