import { existsSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { RegistryUnderTest, tinyAdapter } from "./support.ts";

const at = (name: string): string => new URL(name, import.meta.url).pathname;
const isLongForm = process.env["CJM_CRASH_ALL"] === "1";
/** Every step of the store itself is taken; of opening the registry, which comes first, some. */
const STRIDE = isLongForm ? 1 : 5;

let registry: RegistryUnderTest;
let adapter: string;
beforeEach(async () => {
  registry = await RegistryUnderTest.open();
  adapter = tinyAdapter(join(registry.path, "sources/killed"), { seed: 99 });
});
afterEach(() => registry[Symbol.asyncDispose]());

/** Stores in a process of its own that kills itself at `step`; undefined if it did. */
async function storeUntil(step: number, folder = registry.folder): Promise<number | undefined> {
  const { signal, stdout, stderr, exitCode } = await execa(
    process.execPath,
    [at("killed-store-driver.ts"), folder, adapter, "killed", String(step)],
    { reject: false, env: { NODE_COMPILE_CACHE: join(registry.path, "compiled") } },
  );
  if (signal === "SIGKILL") return undefined;
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: "" });
  return Number(stdout);
}

async function recordsOf(): Promise<string[]> {
  const { value } = await registry.call("query");
  return (value as { records: { id: string }[] }).records.map(({ id }) => id);
}

describe("a registry whose worker is killed while it stores", () => {
  test("has the whole adapter or none of it, and nothing else", { timeout: 300_000 }, async () => {
    await registry.store("before", 1);
    await registry.stop();
    let steps = 0;
    let kept = 0;
    for (;;) {
      steps += 1;
      if ((await storeUntil(steps)) !== undefined) break;
      await registry.start();
      const records = await recordsOf();
      expect(records.slice(0, 1)).toEqual(["before"]);
      expect((await registry.call("verify")).value).toMatchObject({ ok: true, strays: [] });
      expect(registry.files()).toHaveLength(2 * records.length);
      expect(foldersOf("incoming")).toEqual([]);
      if (records.includes("killed")) {
        kept += 1;
        // Once it is there it stays, so the steps after it are those of a repeated job.
        break;
      }
      await registry.stop();
    }
    expect(kept).toBe(1);
    // Note, folder, two files in halves, their modes and syncs, place, record.
    expect(steps).toBeGreaterThan(20);
    console.log(`killed at ${steps} writes`);
  });

  test("is begun again where it was killed while it was begun", { timeout: 120_000 }, async () => {
    const folder = join(registry.path, "fresh");
    let kills = 0;
    for (let step = 1; ; step += STRIDE) {
      rmSync(folder, { recursive: true, force: true });
      if ((await storeUntil(step, folder)) !== undefined) break;
      kills += 1;
      expect(await storeUntil(-1, folder)).toBeGreaterThan(0);
    }
    expect(kills).toBeGreaterThan(3);
  });

  function foldersOf(name: string): string[] {
    const folder = join(registry.folder, name);
    return existsSync(folder) ? readdirSync(folder) : [];
  }
});
