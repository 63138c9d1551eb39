import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { neededBuilds } from "../../../workers/inference/select-engine.ts";

const ROOT = join(import.meta.dirname, "../../..");

test("a machine gets the build it needs and no other", () => {
  const on = (platform: string, arch: string, hasNvidia = false): string[] =>
    neededBuilds({ platform, arch }, hasNvidia);
  expect(on("linux", "x64")).toEqual([]);
  expect(on("linux", "x64", true)).toEqual(["linux-x64-cuda", "linux-x64-cuda-ext"]);
  expect(on("linux", "arm64")).toEqual(["linux-arm64"]);
  expect(on("darwin", "arm64", true)).toEqual(["mac-arm64-metal"]);
});

test("no build for a GPU is among what is locked", () => {
  for (const folder of [".", "workers/inference"]) {
    const file = join(ROOT, folder, "package-lock.json");
    const { packages } = JSON.parse(readFileSync(file, "utf8")) as {
      packages: Record<string, { link?: boolean }>;
    };
    const heavy = Object.entries(packages).filter(([path]) =>
      /@node-llama-cpp\/.*(?:cuda|vulkan)/u.test(path),
    );
    expect(heavy.length).toBeGreaterThan(0);
    for (const [path, { link }] of heavy) expect({ path, link }).toEqual({ path, link: true });
  }
});
