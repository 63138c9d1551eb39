import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

/** A path of the lock file that is no folder of this repository. */
const FROM_A_REGISTRY = /node_modules\/(?:@[^/]+\/)?[^/]+$/u;
const ROOT = join(import.meta.dirname, "../../..");

test("every promise of SECURITY.md names tests that exist", () => {
  const page = readFileSync(join(ROOT, "SECURITY.md"), "utf8");
  const threats = page.slice(page.indexOf("## Threats"), page.indexOf("## What is not promised"));
  const rows = threats
    .split("\n")
    .filter((line) => line.startsWith("| ") && !/^\| (?:threat|-)/u.test(line));
  expect(rows.length).toBeGreaterThan(20);
  for (const row of rows) {
    const named = [...row.matchAll(/`(?<path>test\/[^`]+\.ts)`/gu)].map(([, path = ""]) => path);
    expect(named.length, row).toBeGreaterThan(0);
    for (const path of named) expect(existsSync(join(ROOT, path)), path).toBe(true);
  }
});

test("every dependency is listed with its reason", () => {
  const page = readFileSync(join(ROOT, "docs/dependencies.md"), "utf8");
  const manifest = JSON.parse(readFileSync(join(ROOT, "package.json"), "utf8")) as Record<
    "dependencies" | "devDependencies",
    Record<string, string>
  >;
  const names = Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
  expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
});

test("every package of the lock file has a checksum", () => {
  const lock = JSON.parse(readFileSync(join(ROOT, "package-lock.json"), "utf8")) as {
    packages: Record<string, { integrity?: string; link?: boolean }>;
  };
  const without = Object.entries(lock.packages).filter(
    ([path, entry]) => FROM_A_REGISTRY.test(path) && entry.link !== true && !entry.integrity,
  );
  expect(without).toEqual([]);
});
