import { globSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const SRC = join(ROOT, "src");

/** The composition root knows everything but the command line, provisioning and the workers' side. */
const HOST = [
  "door",
  "capability",
  "queue",
  "telemetry",
  "process",
  "store",
  "scheduler",
  "composition",
  "config",
];

/** Which `src/` folders each folder may import. Read top to bottom: a folder only looks up. */
const MAY_IMPORT: Readonly<Record<string, readonly string[]>> = {
  util: [],
  errors: ["util"],
  protocol: ["errors", "util"],
  config: ["protocol", "errors", "util"],
  composition: ["protocol", "errors", "util"],
  scheduler: ["protocol", "errors", "util"],
  store: ["protocol", "errors", "util"],
  worker: ["protocol", "errors", "util"],
  process: ["protocol", "errors", "util"],
  telemetry: ["process", "protocol", "errors", "util"],
  queue: ["composition", "scheduler", "store", "protocol", "errors", "util"],
  capability: ["config", "process", "telemetry", "store", "protocol", "errors", "util"],
  provision: ["config", "process", "protocol", "errors", "util"],
  door: ["queue", "composition", "store", "protocol", "errors", "util"],
  host: [...HOST, "protocol", "errors", "util"],
  cli: [
    "host",
    "door",
    "queue",
    "provision",
    "config",
    "store",
    "composition",
    "protocol",
    "errors",
    "util",
  ],
};
/** What a folder may import of another by `import type` only: ports, and the shape of answers. */
const TYPES_ONLY: Readonly<Record<string, readonly string[]>> = {
  capability: ["queue", "composition"],
  door: ["capability"],
  cli: ["capability", "telemetry"],
};
const PURE = new Set(["scheduler", "composition"]);
/** Entry files, which belong to no folder. */
const ENTRIES = new Set(["index.ts"]);

interface Import {
  readonly specifier: string;
  readonly isTypeOnly: boolean;
}

function importsOf(file: string): Import[] {
  const source = readFileSync(file, "utf8");
  const statements = source.matchAll(
    /^(?:import|export)\s+(?<clause>[^;]*?)\s*from\s+"(?<from>[^"]+)"/gmu,
  );
  const bare = source.matchAll(/\bimport\(\s*"(?<from>[^"]+)"\s*\)|^import\s+"(?<side>[^"]+)"/gmu);
  return [
    ...[...statements].map(({ groups }) => ({
      specifier: groups?.["from"] ?? "",
      isTypeOnly: isTypeOnly(groups?.["clause"] ?? ""),
    })),
    ...[...bare].map(({ groups }) => ({
      specifier: groups?.["from"] ?? groups?.["side"] ?? "",
      isTypeOnly: false,
    })),
  ];
}

/** The folder of `src/` that a relative import reaches; undefined for a package or an entry file. */
function folderOf(file: string, specifier: string): string | undefined {
  if (!specifier.startsWith(".")) return undefined;
  const parts = join(dirname(file), specifier).split("/");
  return parts.length > 1 ? parts[0] : undefined;
}

/** `type { A }`, or braces whose every member says `type`. */
function isTypeOnly(clause: string): boolean {
  if (clause.startsWith("type ")) return true;
  const members = /^\{(?<members>[^}]*)\}$/u.exec(clause)?.groups?.["members"];
  if (members === undefined) return false;
  const names = members.split(",").filter((name) => name.trim() !== "");
  return names.every((name) => name.trim().startsWith("type "));
}

describe("layers", () => {
  const files = globSync("**/*.ts", { cwd: SRC }).filter((file) => !ENTRIES.has(file));

  test.for(files)("src/%s imports only what its layer may", (file) => {
    const folder = file.split("/", 1)[0] ?? "";
    const wrong = importsOf(join(SRC, file)).flatMap(({ specifier, isTypeOnly: typeOnly }) => {
      const target = folderOf(file, specifier);
      if (PURE.has(folder) && specifier.startsWith("node:")) return [specifier];
      if (target === undefined || target === folder) return [];
      if (MAY_IMPORT[folder]?.includes(target) === true) return [];
      return typeOnly && TYPES_ONLY[folder]?.includes(target) === true ? [] : [specifier];
    });
    expect(wrong).toEqual([]);
  });

  test("every folder of src has its place in the table", () => {
    const folders = new Set(files.map((file) => file.split("/", 1)[0]));
    expect([...folders].filter((folder) => MAY_IMPORT[folder ?? ""] === undefined)).toEqual([]);
  });

  test("util stays small", () => {
    expect(globSync("util/*.ts", { cwd: SRC }).length).toBeLessThanOrEqual(8);
  });

  test.for(globSync(["workers/**/*.ts", "examples/**/*.ts"], { cwd: ROOT }))(
    "%s reaches the host's package through its public entries only",
    (file) => {
      const wrong = importsOf(join(ROOT, file)).filter(({ specifier }) =>
        /(?:^|\/)src\//u.test(specifier),
      );
      expect(wrong).toEqual([]);
    },
  );
});
