import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { statusOutputSchema } from "../../../workers/inference/actions/schemas.ts";
import { PARAMETER_NAMES, type ParameterName } from "../../../workers/inference/task/parameters.ts";
import {
  embedOutputSchema,
  loadAdapterOutputSchema,
  modelCardSchema,
  scoreOutputSchema,
  streamChunkSchema,
  unloadAdapterOutputSchema,
  type Generation,
} from "../../../workers/inference/task/schemas.ts";
import { RegistryUnderTest } from "../../integration/adapter-registry/support.ts";
import { writeTinyAdapter, writeTinyFolder } from "../../integration/inference/tiny-model.ts";
import { temporaryFolder } from "../../support/cli.ts";
import { describeParameters } from "../../support/text-generation-contract.ts";
import { errorOf, generateWith } from "../../support/text-generation.ts";
import { installEnvironments, INSTALL_MS, tinyLlm } from "../support/environment.ts";
import { openPythonSite, type PythonSite } from "./client.ts";

const NAME = "inference-transformers";
const PROMPT = "one two three four five six seven eight nine ten one two";
const COUNT = { messages: [{ role: "user", content: "Count." }], temperature: 0 };

const SETTINGS = { device: "cpu", threads: 1, parallel: 32 };

let site: PythonSite;
let base = "";
let adapterPath = "";

async function status(): Promise<ReturnType<typeof statusOutputSchema.parse>> {
  return statusOutputSchema.parse(await site.client.call("status", {}));
}

/** Another model in the same process. */
async function use(model: string): Promise<void> {
  await site.client.post("/reconfigure", { new_config: { ...SETTINGS, model } });
  await site.client.post("/prefetch", {});
}

beforeAll(async () => {
  await installEnvironments();
  ({ base, swapped: adapterPath } = await tinyLlm(NAME));
  site = await openPythonSite({ ...SETTINGS, model: base });
}, INSTALL_MS);
afterAll(() => site[Symbol.asyncDispose]());

describe(`${NAME} with the untrained model that the other engines are judged with`, () => {
  let folder: AsyncDisposable & { readonly path: string };
  let honoured: ReadonlySet<ParameterName> = new Set();

  beforeAll(async () => {
    folder = await temporaryFolder();
    await writeTinyAdapter(join(folder.path, "adapter"));
    await use(await writeTinyFolder(join(folder.path, "tiny")));
    const { parameters } = await status();
    honoured = new Set(PARAMETER_NAMES.filter((name) => parameters.includes(name)));
  }, 120_000);
  afterAll(async () => {
    await use(base);
    await folder[Symbol.asyncDispose]();
  }, 120_000);

  describeParameters({
    client: () => site.client,
    honours: () => honoured,
    adapterPath: () => join(folder.path, "adapter"),
    prompt: "hello world, this is",
  });

  test("honours all of them", () => {
    expect([...honoured]).toEqual([...PARAMETER_NAMES]);
  });
});

describe(`${NAME} with a trained model`, () => {
  test("answers every method in the fields of the task", async () => {
    const { client } = site;
    const loaded = loadAdapterOutputSchema.parse(
      await client.task("load_adapter", { id: "one", path: adapterPath }),
    );
    expect(loaded.effect).toBeGreaterThan(0.1);
    const scored = await client.call("score", {
      prompt: PROMPT,
      top: 3,
      adapters: [{ id: "one" }],
    });
    const { tokens, next, adapters } = scoreOutputSchema.parse(scored);
    expect(next).toHaveLength(tokens.length);
    expect(adapters[0]?.sha256).toBe(loaded.adapter.sha256);
    const vectors = embedOutputSchema.parse(await client.task("embed", { input: ["a", "b"] }));
    expect(vectors.embeddings.map((vector) => vector.length)).toEqual([64, 64]);
    expect(await client.task("count_tokens", { text: PROMPT })).toEqual({ tokens: tokens.length });
    expect(await client.task("list_adapters", {})).toEqual({ adapters: [loaded.adapter] });
    unloadAdapterOutputSchema.parse(await client.task("unload_adapter", { id: "one" }));
    modelCardSchema.parse(await client.call("model_info", {}));
  });

  test("streams 32 texts at once, none lost and none mixed", async () => {
    const { client } = site;
    const asked = Array.from({ length: 32 }, (_, place) => ({
      prompt: PROMPT.slice(place),
      temperature: place % 2,
      seed: place,
      max_tokens: 10 + place,
      adapters: place % 3 === 0 ? [{ path: adapterPath }] : [],
    }));
    const alone: Generation[] = [];
    for (const kwargs of asked) alone.push(await generateWith(client, kwargs));
    const together = await Promise.all(
      asked.map(async (kwargs) => {
        let text = "";
        for await (const chunk of client.stream(kwargs)) {
          const parsed = streamChunkSchema.parse(chunk);
          if (parsed.type === "done") expect(parsed.result.text).toBe(text);
          else text += parsed.text;
        }
        return text;
      }),
    );
    expect(together).toEqual(alone.map(({ text }) => text));
    expect(new Set(together).size).toBeGreaterThan(20);
  }, 120_000);

  test("applies an adapter by its id in a registry that runs beside it", async () => {
    const { client } = site;
    await using registry = await RegistryUnderTest.open();
    const facts = { id: "swapped-1", task_type: "colours" };
    const stored = await registry.call("store", { adapter: adapterPath, ...facts });
    const sha256 = stored.at<string>("record.file_hash");
    await client.post("/reconfigure", {
      new_config: { ...SETTINGS, model: base, adapter_registry: registry.folder },
    });
    const { loads } = await status();
    const asked = { prompt: PROMPT, temperature: 0, max_tokens: 8 };
    const named = await generateWith(client, {
      ...asked,
      adapters: [{ registry_id: "swapped-1", scale: 0.5 }],
    });
    const byPath = { ...asked, adapters: [{ path: adapterPath, scale: 0.5 }] };
    expect(named.text).toBe((await generateWith(client, byPath)).text);
    expect(named.adapters).toEqual([{ id: "swapped-1", sha256, scale: 0.5 }]);
    const loaded = await client.task("load_adapter", { id: "one", registry_id: "swapped-1" });
    expect(loaded).toMatchObject({ adapter: { id: "one", sha256 } });
    await client.task("unload_adapter", { id: "one" });
    // Another registry is no reason to load the model anew.
    expect((await status()).loads).toBeLessThanOrEqual(loads + 2);

    const refusal = async (use: object): Promise<string> => {
      const { code, message } = await errorOf(generateWith(client, { ...asked, adapters: [use] }));
      return `${code} ${message}`;
    };
    expect(await refusal({ registry_id: "nobody" })).toMatch(
      /^CAPABILITY_INPUT .*adapter_unknown/u,
    );
    const other = { registry_id: "swapped-1", sha256: `sha256:${"0".repeat(64)}` };
    expect(await refusal(other)).toMatch(/^CAPABILITY_INPUT .*adapter_hash/u);
    const config = join(stored.at<string>("record.file_path"), "adapter_config.json");
    await chmod(config, 0o600);
    await writeFile(config, `${await readFile(config, "utf8")} `);
    expect(await refusal({ registry_id: "swapped-1" })).toMatch(
      /^CAPABILITY_INPUT .*adapter_hash/u,
    );
    await registry.stop();
    await writeFile(join(registry.folder, "registry.db"), "no database ".repeat(100));
    expect(await refusal({ registry_id: "swapped-1" })).toMatch(
      /^CAPABILITY_INPUT .*registry_invalid/u,
    );
    await client.post("/reconfigure", {
      new_config: { ...SETTINGS, model: base, adapter_registry: join(registry.path, "none") },
    });
    expect(await refusal({ registry_id: "swapped-1" })).toMatch(
      /^CAPABILITY_INPUT .*registry_missing/u,
    );
  });

  test("frees the slot of a text whose caller leaves", async () => {
    const chunks = site.client.stream({ ...COUNT, max_tokens: 900 });
    expect(await chunks.next()).toMatchObject({ done: false });
    expect((await status()).active).toBe(1);
    await chunks.return();
    await expect.poll(async () => (await status()).active).toBe(0);
  });

  test("ends a cancelled call and frees its slot", async () => {
    const { client } = site;
    const leaving = new AbortController();
    const running = client.call("chat", { ...COUNT, max_tokens: 900 }, leaving.signal);
    await expect.poll(async () => (await status()).active).toBe(1);
    leaving.abort();
    await expect(running).rejects.toThrow("left");
    await expect.poll(async () => (await status()).active).toBe(0);
    expect(await status()).toMatchObject({ state: "loaded", waiting: 0 });
  });
});
