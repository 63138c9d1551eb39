import { copyFile, mkdir, truncate } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { errorOf, generateWith } from "../../support/text-generation.ts";
import { openSite, type Site } from "./site.ts";

let site: Site;
let shelf = "";

beforeAll(async () => {
  site = await openSite();
  shelf = join(site.folder, "shelf");
  await mkdir(join(shelf, "one"), { recursive: true });
  await copyFile(site.model, join(shelf, "one", "small.gguf"));
  await copyFile(site.model, join(shelf, "cut.gguf"));
  await truncate(join(shelf, "cut.gguf"), 100);
});
afterAll(() => site[Symbol.asyncDispose]());

/** The same worker with another config, as a host gives it one. */
async function configure(config: object): Promise<void> {
  const rest = { gpu: "none", threads: 1 };
  await site.client.post("/reconfigure", {
    old_config: { model: site.model, ...rest },
    new_config: { model: site.model, ...rest, ...config },
  });
}

describe("models", () => {
  test("are listed by their headers, and what cannot be read is named; nothing is loaded", async () => {
    await configure({ model_folders: [shelf] });
    expect(await site.client.call("list_models", {})).toMatchObject({
      models: [{ id: "small", architecture: "llama", context_length: 512, sha256: null }],
      unreadable: [{ path: join(shelf, "cut.gguf"), reason: expect.any(String) as string }],
    });
    expect(await site.status()).toMatchObject({ state: "unloaded", loads: 0 });
  });

  test("may be a folder with one file, not with none or several", async () => {
    await configure({ model: join(shelf, "one") });
    const text = await generateWith(site.client, { prompt: "hello", max_tokens: 2 });
    expect(text.evidence.model).toBe("small");
    await copyFile(site.model, join(shelf, "one", "other.gguf"));
    await configure({});
    const refused = configure({ model: join(shelf, "one") });
    expect(await errorOf(refused)).toMatchObject({
      code: "CAPABILITY_INPUT",
      reason: "model_missing",
    });
  });

  test("that cannot be fetched are no silence", async () => {
    await configure({});
    const asked = { url: "http://127.0.0.1:9/m.gguf", sha256: `sha256:${"0".repeat(64)}` };
    expect(await errorOf(site.client.call("download_model", asked))).toMatchObject({
      code: "CAPABILITY_TRANSIENT",
      reason: "download_failed",
      message: expect.stringMatching(/^download_failed: .*is there a network\?/u) as string,
    });
  });
});
