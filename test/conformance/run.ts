import { readFile } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { manifestSchema, type Manifest } from "../../src/protocol/index.ts";
import { casesFor, Suite } from "./suite.ts";
import type { Target } from "./worker-under-test.ts";

/**
 * Runs the conformance cases against the worker a manifest starts:
 * `node test/conformance/run.ts <manifest.json>`. Exits with the number of failed cases, at most 1.
 */
function targetOf(manifest: Manifest, folder: string): Target {
  const { install, code } = manifest;
  const env = { ...install.env_vars };
  const [program, ...args] = install.command ?? commandOf(manifest, folder);
  if (program === undefined) throw new Error("the manifest does not say how to start the worker");
  return { name: code.name, command: [program, ...args], env, cwd: folder };
}

function commandOf({ install, code }: Manifest, folder: string): readonly string[] {
  if (code.entry !== undefined) return [process.execPath, resolve(folder, code.entry)];
  return [install.python_path, "-m", "cjm_worker", `${code.module}:${code.class}`];
}

async function main(path: string): Promise<number> {
  const manifest = manifestSchema.parse(JSON.parse(await readFile(path, "utf8")));
  const target = targetOf(manifest, dirname(resolve(path)));
  const count = { passed: 0, failed: 0, skipped: 0 };
  await using suite = new Suite(target);
  for (const each of casesFor(target)) {
    if (each.fixture === true && target.name !== "conformance") {
      count.skipped += 1;
      continue;
    }
    try {
      await suite.run(each);
      count.passed += 1;
      console.log(`ok      ${each.title}`);
    } catch (error) {
      count.failed += 1;
      console.log(`FAILED  ${each.title}\n${error instanceof Error ? error.stack : String(error)}`);
    }
  }
  console.log(`${count.passed} passed, ${count.failed} failed`);
  if (count.skipped > 0) console.log(`${count.skipped} need the fixture capability "conformance"`);
  return Math.min(count.failed, 1);
}

const [path] = process.argv.slice(2);
if (path === undefined) {
  console.error("usage: node test/conformance/run.ts <manifest.json>");
  process.exitCode = 2;
} else {
  process.exitCode = await main(path);
}
