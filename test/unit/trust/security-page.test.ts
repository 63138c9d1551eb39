import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

/** A path of the lock file that is no folder of this repository. */
const FROM_A_REGISTRY = /node_modules\/(?:@[^/]+\/)?[^/]+$/u;
const ROOT = join(import.meta.dirname, "../../..");

/** `file`: "test", "test"; … of a cell, each test with its file. */
function namedTests(cell: string): [file: string, name: string][] {
  return [
    ...cell.matchAll(/`(?<file>test\/[^`]+\.ts)`: (?<names>"[^"]+"(?:, "[^"]+")*)/gu),
  ].flatMap(([, file = "", names = ""]) =>
    [...names.matchAll(/"(?<name>[^"]+)"/gu)].map(([, name = ""]): [string, string] => [
      file,
      name,
    ]),
  );
}

test("every promise of SECURITY.md names tests that exist, by file and name", () => {
  const page = readFileSync(join(ROOT, "SECURITY.md"), "utf8");
  const threats = page.slice(page.indexOf("## Threats"), page.indexOf("## What is not promised"));
  const rows = threats
    .split("\n")
    .filter((line) => line.startsWith("| ") && !/^\| (?:threat|-)/u.test(line));
  expect(rows.length).toBeGreaterThan(20);
  for (const row of rows) {
    const named = namedTests(row);
    expect(named.length, row).toBeGreaterThan(0);
    for (const [file, name] of named) {
      expect(existsSync(join(ROOT, file)), file).toBe(true);
      expect(readFileSync(join(ROOT, file), "utf8"), file).toContain(name);
    }
  }
});

interface Manifest {
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly devDependencies?: Readonly<Record<string, string>>;
}

interface Lock {
  readonly packages: Readonly<Record<string, Locked>>;
}

interface Locked extends Manifest {
  readonly version?: string;
  readonly resolved?: string;
  readonly integrity?: string;
  readonly link?: boolean;
  readonly hasInstallScript?: boolean;
}

/** The repository, and every worker that has packages of its own. */
const FOLDERS = [
  ".",
  ...readdirSync(join(ROOT, "workers")).map((name) => `workers/${name}`),
  "bench/peers",
].filter((folder) => existsSync(join(ROOT, folder, "package-lock.json")));

const read = (folder: string, file: string): unknown =>
  JSON.parse(readFileSync(join(ROOT, folder, file), "utf8"));

/** Packages that run a program when they are installed; each is known and needed. */
const INSTALL_SCRIPTS =
  /(?:^|\/)(?:better-sqlite3|koffi|node|node-llama-cpp|msgpackr-extract|fsevents)$/u;

test("every dependency is listed with its reason", () => {
  const page = readFileSync(join(ROOT, "docs/dependencies.md"), "utf8");
  const names = FOLDERS.flatMap((folder) => {
    const manifest = read(folder, "package.json") as Manifest;
    return Object.keys({ ...manifest.dependencies, ...manifest.devDependencies });
  });
  expect(names.filter((name) => !page.includes(`\`${name}\``))).toEqual([]);
});

test.each(FOLDERS)(
  "the lock file of %s is complete: what is asked for, by version and checksum",
  (folder) => {
    const { packages } = read(folder, "package-lock.json") as Lock;
    const manifest = read(folder, "package.json") as Manifest;
    const asked = ({ dependencies, devDependencies }: Manifest): object => ({
      ...dependencies,
      ...devDependencies,
    });
    expect(asked(packages[""] ?? {})).toEqual(asked(manifest));
    const entries = Object.entries(packages);
    const fromRegistry = entries.filter(
      ([path, { link }]) => FROM_A_REGISTRY.test(path) && link !== true,
    );
    const open = fromRegistry.filter(
      ([, { version, integrity }]) =>
        version === undefined || integrity?.startsWith("sha512-") !== true,
    );
    expect(open).toEqual([]);
    const elsewhere = entries.filter(([, { resolved }]) =>
      /^(?:git|http:|ssh)/u.test(resolved ?? ""),
    );
    expect(elsewhere).toEqual([]);
    const programs = fromRegistry.filter(
      ([path, { hasInstallScript }]) => hasInstallScript && !INSTALL_SCRIPTS.test(path),
    );
    expect(programs).toEqual([]);
  },
);
