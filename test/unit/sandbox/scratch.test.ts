import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { closeAll, Scratch } from "../../../workers/sandbox/scratch.ts";

let parent: string;
beforeEach(() => {
  parent = mkdtempSync(join(tmpdir(), "cjm-scratch-"));
});
afterEach(() => rmSync(parent, { recursive: true, force: true }));

test("removes the folder of a worker that is gone and keeps that of one that lives", () => {
  const gone = join(parent, "cjm-sandbox-gone");
  mkdirSync(gone);
  execFileSync("mkfifo", [join(gone, "alive")]);
  using first = Scratch.create(parent, 0);
  using second = Scratch.create(parent, 0);
  expect([gone, first.folder, second.folder].map((path) => existsSync(path))).toEqual([
    false,
    true,
    true,
  ]);
});

test("keeps a folder that is just being made", () => {
  using first = Scratch.create(parent);
  const young = join(parent, "cjm-sandbox-young");
  mkdirSync(young);
  execFileSync("mkfifo", [join(young, "alive")]);
  using second = Scratch.create(parent);
  expect([first.folder, young, second.folder].every((path) => existsSync(path))).toBe(true);
});

test("gives a file that has no name and a slot that is used again", () => {
  using scratch = Scratch.create(parent);
  const fd = scratch.fileWith("content");
  expect(readFileSync(fd, "utf8")).toBe("content");
  const slot = scratch.takeSlot();
  const { readFd, writeFd } = slot.open("out");
  closeAll([fd, readFd, writeFd]);
  scratch.returnSlot(slot);
  expect(scratch.takeSlot()).toBe(slot);
});
