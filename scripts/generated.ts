import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("..", import.meta.url));

export interface Generated {
  /** Relative to the repository's root. */
  readonly path: string;
  readonly content: string;
}

/** Writes generated files; with `--check` fails instead, naming each one that is stale. */
export async function writeGenerated(files: readonly Generated[]): Promise<void> {
  const isCheck = process.argv.includes("--check");
  for (const { path, content } of files) {
    const target = join(ROOT, path);
    const current = await readFile(target, "utf8").catch(() => "");
    if (current === content) continue;
    if (isCheck) {
      console.error(`${path} is stale; run \`npm run generate\``);
      process.exitCode = 1;
      continue;
    }
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, content);
    console.log(`wrote ${path}`);
  }
}
