import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createCapability } from "../../../workers/inference/capability.ts";
import { errorOf, generateWith, inProcess } from "../../support/text-generation.ts";
import { RegistryUnderTest } from "../adapter-registry/support.ts";
import { startVllm } from "../inference-openai/stubs/vllm-stub.ts";
import { openSite, type Site } from "./site.ts";
import { writeTinyAdapter } from "./tiny-model.ts";

const GREEDY = { prompt: "hello world", temperature: 0, max_tokens: 12 };

interface Stored {
  readonly file_hash: string;
  readonly file_path: string;
}

/** What the real registry has written; it beside the engines, in a process of its own: host.test.ts. */
let registry: RegistryUnderTest;
let site: Site;
let peft = "";
let stored: Stored;
let changed: Stored;

beforeAll(async () => {
  registry = await RegistryUnderTest.open();
  site = await openSite({ adapter_registry: registry.folder });
  const store = async (adapter: string, id: string): Promise<Stored> =>
    (await registry.call("store", { adapter, id, task_type: "poems" })).at("record");
  peft = await writeTinyAdapter(join(site.folder, "adapter"));
  stored = await store(peft, "poet-1");
  changed = await store(await writeTinyAdapter(join(site.folder, "other"), { seed: 5 }), "poet-2");
  await registry.stop();
});
afterAll(async () => {
  await site[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
});

const reasonOf = async (use: object): Promise<string> => {
  const { code, reason } = await errorOf(generateWith(site.client, { ...GREEDY, adapters: [use] }));
  return `${code} ${reason}`;
};

describe("an adapter of the registry", () => {
  test("is applied by its id, and is the content that was stored", async () => {
    const byPath = await generateWith(site.client, { ...GREEDY, adapters: [{ path: peft }] });
    const byId = await generateWith(site.client, {
      ...GREEDY,
      adapters: [{ registry_id: "poet-1", scale: 1 }],
    });
    expect(byId.text).toBe(byPath.text);
    expect(byId.text).not.toBe((await generateWith(site.client, GREEDY)).text);
    expect(byId.adapters).toEqual([{ id: "poet-1", sha256: stored.file_hash, scale: 1 }]);
    expect(byId.evidence.adapter_effect).toBeGreaterThan(1e-3);
  });

  test("can be loaded under a name of its own", async () => {
    const named = { id: "poet", registry_id: "poet-1", sha256: stored.file_hash };
    expect(await site.client.task("load_adapter", named)).toMatchObject({
      adapter: { id: "poet", sha256: stored.file_hash, path: stored.file_path },
    });
    const { adapters } = await generateWith(site.client, { ...GREEDY, adapters: [{ id: "poet" }] });
    expect(adapters).toMatchObject([{ id: "poet", sha256: stored.file_hash }]);
    await site.client.task("unload_adapter", { id: "poet" });
  });

  test("reaches a server by the same id", async () => {
    await using vllm = await startVllm();
    const client = inProcess(createCapability(), {
      data: join(site.folder, "server"),
      output: site.folder,
    });
    await client.post("/initialize", {
      engine: "openai",
      openai: { server: "vllm", base_url: vllm.url, model: "tiny" },
      adapter_registry: registry.folder,
    });
    const use = { registry_id: "poet-1" };
    expect(await generateWith(client, { prompt: "hi", adapters: [use] })).toMatchObject({
      adapters: [{ id: "poet-1", sha256: stored.file_hash }],
    });
    expect([...vllm.state.adapters.values()]).toEqual([stored.file_path]);
    await client.post("/cleanup", {});
  });
});

describe("what is refused", () => {
  test("an unknown id, two names at once, a hash that is another", async () => {
    expect(await reasonOf({ registry_id: "nobody" })).toBe("CAPABILITY_INPUT adapter_unknown");
    const both = { ...GREEDY, adapters: [{ registry_id: "poet-1", path: peft }] };
    expect(await errorOf(generateWith(site.client, both))).toMatchObject({
      code: "CAPABILITY_INPUT",
      fields_invalid: ["adapters.0"],
    });
    const other = { registry_id: "poet-1", sha256: `sha256:${"0".repeat(64)}` };
    expect(await reasonOf(other)).toBe("CAPABILITY_INPUT adapter_hash");
    const neither = site.client.call("load_adapter", { id: "poet" });
    expect(await errorOf(neither)).toMatchObject({ fields_invalid: ["path"] });
  });

  test("files that are not what was stored", async () => {
    const config = join(changed.file_path, "adapter_config.json");
    await chmod(config, 0o600);
    await writeFile(config, '{"peft_type":"LORA","r":4,"lora_alpha":64}');
    expect(await reasonOf({ registry_id: "poet-2" })).toBe("CAPABILITY_INPUT adapter_hash");
  });

  test("a folder without a registry, and a file that is none", async () => {
    const folder = join(site.folder, "elsewhere");
    const use = { registry_id: "poet-1" };
    await using other = await openSite({ adapter_registry: folder });
    const ask = (): Promise<unknown> => generateWith(other.client, { ...GREEDY, adapters: [use] });
    expect((await errorOf(ask())).message).toMatch(/^registry_missing: /u);
    await mkdir(folder);
    await writeFile(join(folder, "registry.db"), "once upon a time ".repeat(100));
    expect((await errorOf(ask())).message).toMatch(/^registry_invalid: /u);
  });
});
