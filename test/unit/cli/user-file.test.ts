import { execFileSync } from "node:child_process";
import { lstat, open, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { newCommand } from "../../../src/cli/commands/new.ts";
import { writeUserFile } from "../../../src/cli/user-file.ts";
import { temporaryFolder } from "../../support/cli.ts";

test("a user's file keeps its rights and its link", async () => {
  await using folder = await temporaryFolder();
  const [file, link] = [join(folder.path, "file"), join(folder.path, "link")] as const;
  await writeFile(file, "before", { mode: 0o600 });
  await symlink(file, link);
  await writeUserFile(link, "after");
  expect(await readFile(file, "utf8")).toBe("after");
  expect((await stat(file)).mode & 0o777).toBe(0o600);
  expect((await lstat(link)).isSymbolicLink()).toBe(true);
});

test("what is no regular file is written to and not replaced", async () => {
  await using folder = await temporaryFolder();
  const pipe = join(folder.path, "pipe");
  execFileSync("mkfifo", [pipe]);
  await using reader = await open(pipe, "r+");
  await writeUserFile(pipe, "page");
  const { buffer, bytesRead } = await reader.read(Buffer.alloc(16));
  expect(buffer.subarray(0, bytesRead).toString()).toBe("page");
  expect((await stat(pipe)).isFIFO()).toBe(true);
});

test("one of two that make the same capability at once fails and removes nothing of the other", async () => {
  await using folder = await temporaryFolder();
  const config = join(folder.path, "cjm.yaml");
  await writeFile(config, "data_dir: data\n");
  const options = { lang: "ts", json: true, cjmConfig: config } as const;
  const made = await Promise.allSettled([newCommand("tool", options), newCommand("tool", options)]);
  expect(made.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  expect(await readFile(join(folder.path, "tool", "package.json"), "utf8")).toContain("tool");
  expect(await readFile(join(folder.path, "capabilities.yaml"), "utf8")).toContain("tool");
});
