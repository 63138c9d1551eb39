/**
 * Puts `cjm-ctl` and the packages it uses into few files, `dist/cli`: most of a short command's time
 * goes to finding and linking hundreds of small modules. Native packages and those of rare commands
 * stay outside. The licences of what is inside lie beside it.
 */
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { rolldown } from "rolldown";

const ROOT = join(dirname(fileURLToPath(import.meta.url)), "..");
const TARGET = join(ROOT, "dist/cli");
/** Native, or large and used by one command. */
const OUTSIDE = /^(?:better-sqlite3|json-schema-to-typescript)$/u;

await using bundle = await rolldown({
  cwd: ROOT,
  // Threads are found beside the file that starts them.
  input: { main: "src/cli/main.ts", "diagnostics-thread": "src/store/diagnostics-thread.ts" },
  platform: "node",
  external: OUTSIDE,
});
rmSync(TARGET, { recursive: true, force: true });
const { output } = await bundle.write({ dir: TARGET, format: "esm", entryFileNames: "[name].js" });
const modules = output.flatMap((file) => (file.type === "chunk" ? file.moduleIds : []));
writeFileSync(join(TARGET, "LICENSES.txt"), licenses(modules));

/** Licence texts of the packages that modules come from, in the order of their names. */
function licenses(paths: readonly string[]): string {
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
