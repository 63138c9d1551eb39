/**
 * Puts the SDK of TypeScript workers and the packages it uses into few files, `dist/worker`: most of
 * a worker's start goes to finding and linking small modules, of which zod alone has a hundred. The
 * licences of what is inside lie beside it.
 */
import { readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rolldown } from "rolldown";
import { licenses, ROOT } from "./bundle-licenses.ts";

const TARGET = join(ROOT, "dist/worker");

await using bundle = await rolldown({
  cwd: ROOT,
  input: { index: "src/worker/index.ts" },
  platform: "node",
});
// Its declarations stay: they are what a worker is compiled against.
for (const name of readdirSync(TARGET).filter((file) => /\.js(?:\.map)?$/u.test(file))) {
  rmSync(join(TARGET, name));
}
const { output } = await bundle.write({ dir: TARGET, format: "esm", entryFileNames: "[name].js" });
const modules = output.flatMap((file) => (file.type === "chunk" ? file.moduleIds : []));
writeFileSync(join(TARGET, "LICENSES.txt"), licenses(modules));
