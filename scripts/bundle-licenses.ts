import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");

/** Licence texts of the packages that modules come from, in the order of their names. */
export function licenses(paths: readonly string[]): string {
  const marker = `${sep}node_modules${sep}`;
  const folders = paths.flatMap((path) => {
    const at = path.lastIndexOf(marker);
    if (at === -1) return [];
    const [scope = "", name = ""] = path.slice(at + marker.length).split(sep);
    return [
      path.slice(0, at + marker.length) + (scope.startsWith("@") ? join(scope, name) : scope),
    ];
  });
  return [...new Set(folders)].toSorted().map(licenseOf).join("\n");
}

function licenseOf(folder: string): string {
  const name = folder.slice(folder.lastIndexOf(`node_modules${sep}`) + 13);
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/iu.test(entry));
  if (file === undefined) throw new Error(`${name} has no licence file`);
  return `## ${name}\n\n${readFileSync(join(folder, file), "utf8").trim()}\n`;
}
