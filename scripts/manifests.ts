// Writes manifests/: what each shipped TypeScript worker says of itself, with no path and no time of
// any machine. Needs a build. With --check it fails when a file is stale.
import { readdir } from "node:fs/promises";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { join } from "node:path";
import { execa } from "execa";
import { format, resolveConfig } from "prettier";
import { codeSectionSchema, MANIFEST_FORMAT_VERSION } from "../src/protocol/index.ts";
import { hashCanonical } from "../src/util/canonical-json.ts";
import { writeGenerated, type Generated } from "./generated.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
/** Workers that must see the process ids of the host. */
const UNCAGED = new Set(["gpu-monitor"]);

async function shippedManifest(name: string): Promise<Generated> {
  const entry = `dist/workers/${name}/main.js`;
  const { stdout } = await execa(process.execPath, [entry], {
    cwd: ROOT,
    env: { CJM_INTROSPECT: "1" },
  });
  const answer: unknown = JSON.parse(stdout.trimEnd().split("\n").at(-1) ?? "");
  const code = codeSectionSchema.parse(answer);
  const manifest = {
    format_version: MANIFEST_FORMAT_VERSION,
    install: UNCAGED.has(name) ? { cage: "group" } : {},
    code: { ...code, entry },
    drift_tracking: {
      config_schema_hash: hashCanonical(code.config_schema ?? {}),
      structural_surface_hash: hashCanonical(code.structural_surface ?? {}),
    },
    overrides: {},
  };
  const path = `manifests/${name}.json`;
  const style = await resolveConfig(path, { editorconfig: false });
  return { path, content: await format(JSON.stringify(manifest), { ...style, filepath: path }) };
}

const names = (await readdir(join(ROOT, "workers"))).filter((name) =>
  existsSync(join(ROOT, "workers", name, "main.ts")),
);
const generated: Generated[] = [];
for (const name of names.sort()) generated.push(await shippedManifest(name));
await writeGenerated(generated);
