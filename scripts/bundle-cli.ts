/**
 * Puts `cjm-ctl` and the packages it uses into few files, `dist/cli`: most of a short command's time
 * goes to finding and linking hundreds of small modules. They are CommonJS, which Node links with
 * less work than modules, but for `main.js`. Native packages and those of rare commands stay
 * outside. The licences of what is inside lie beside it.
 */
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { rolldown, type InputOptions } from "rolldown";
import { licenses, ROOT } from "./bundle-licenses.ts";

const TARGET = join(ROOT, "dist/cli");
/** Native, or large and used by one command. */
const OUTSIDE = /^(?:better-sqlite3|json-schema-to-typescript)$/u;
/** None of these does anything when it is loaded, so a command loads only those it uses. */
const WITHOUT_SIDE_EFFECTS = /^\/(?:src|node_modules\/(?:kysely|zod))\//u;

rmSync(TARGET, { recursive: true, force: true });
const modules = [
  ...(await bundle(
    {
      // Threads are found beside the file that starts them.
      input: {
        program: "src/cli/program.ts",
        "diagnostics-thread": "src/store/diagnostics-thread.ts",
      },
      external: OUTSIDE,
      treeshake: { moduleSideEffects: (id) => !WITHOUT_SIDE_EFFECTS.test(id.replace(ROOT, "")) },
    },
    "cjs",
  )),
  ...(await bundle(
    {
      input: { main: "src/cli/main.ts" },
      plugins: [
        {
          name: "program-is-beside",
          resolveId: (id) =>
            id === "./program.ts" ? { id: "./program.cjs", external: true } : null,
        },
      ],
    },
    "esm",
  )),
];
writeFileSync(join(TARGET, "LICENSES.txt"), licenses(modules));

async function bundle(options: InputOptions, format: "cjs" | "esm"): Promise<string[]> {
  await using bundled = await rolldown({ cwd: ROOT, platform: "node", ...options });
  const extension = format === "cjs" ? "cjs" : "js";
  const { output } = await bundled.write({
    dir: TARGET,
    format,
    entryFileNames: `[name].${extension}`,
    chunkFileNames: `[name]-[hash].${extension}`,
  });
  return output.flatMap((file) => (file.type === "chunk" ? file.moduleIds : []));
}
