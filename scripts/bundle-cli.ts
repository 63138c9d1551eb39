/**
 * Puts `cjm-ctl` and the packages it uses into few files, `dist/cli`: most of a short command's time
 * goes to finding and linking hundreds of small modules. Native packages and those of rare commands
 * stay outside. The licences of what is inside lie beside it.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { licenses, ROOT } from "./bundle-licenses.ts";

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
