import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { isRecord } from "../util/record.ts";

const PACKAGE_NAME = "cjm-substrate";

let cached: { readonly root: string; readonly version: string } | undefined;

/** Folder and version of the installed `cjm-substrate` package that this code is part of. */
export function hostPackage(): { readonly root: string; readonly version: string } {
  cached ??= findPackage(dirname(fileURLToPath(import.meta.url)));
  return cached;
}

function findPackage(start: string): { root: string; version: string } {
  for (let folder = start; ; folder = dirname(folder)) {
    const manifest = readPackage(join(folder, "package.json"));
    if (manifest?.["name"] === PACKAGE_NAME) {
      const version = manifest["version"];
      return { root: folder, version: typeof version === "string" ? version : "0.0.0" };
    }
    if (dirname(folder) === folder) {
      throw new TypeError(`${start} lies in no folder with the package.json of ${PACKAGE_NAME}`);
    }
  }
}

function readPackage(path: string): Record<string, unknown> | undefined {
  try {
    const parsed: unknown = JSON.parse(readFileSync(path, "utf8"));
    return isRecord(parsed) ? parsed : undefined;
  } catch {
    return undefined;
  }
}
