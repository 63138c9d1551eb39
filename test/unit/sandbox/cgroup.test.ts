import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { findCgroupParent } from "../../../workers/sandbox/cgroup.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "cjm-cgroup-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe("findCgroupParent", () => {
  test("says what is missing when a folder was not delegated", () => {
    const { parent, ...rest } = findCgroupParent(folder);
    expect(parent).toBeNull();
    expect(rest).toEqual({
      reason: expect.stringContaining("the memory controller is not delegated") as unknown,
    });
    expect(readdirSync(folder)).toEqual([]);
  });

  test("says that a folder is not there", () => {
    const { parent } = findCgroupParent(join(folder, "none"));
    expect(parent).toBeNull();
  });
});
