import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { createPipeline, type Pipeline } from "../../../src/index.ts";
import { generationSchema, type Generation } from "../../../workers/inference/task/schemas.ts";
import { failure, run } from "../capability/support.ts";
import { gone } from "../worker/start-worker.ts";
import { writeTinyAdapter, writeTinyModel } from "./tiny-model.ts";

const at = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const fromSource = (path: string): string[] => [
  process.execPath,
  "--import",
  at("test/support/resolve-source.ts"),
  at(path),
];
const SERVER = at("test/integration/inference-openai/stubs/managed-driver.ts");
const GREEDY = { prompt: "hello world, this is", temperature: 0 };
/** More than fits between the worker and a reader who stops reading. */
const ENDLESS = { ...GREEDY, max_tokens: 30_000, grammar: "root ::= [a-z ] root" };

let folder = "";
let pipeline: Pipeline;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-inference-host-"));
  await mkdir(join(folder, "manifests"));
  for (const name of ["inference", "adapter-registry"]) {
    const manifest = JSON.parse(await readFile(at(`manifests/${name}.json`), "utf8")) as object;
    // No PID namespace: the server says which pid it has, and is killed by that.
    const install = { command: fromSource(`workers/${name}/main.ts`), cage: "group" };
    await writeFile(
      join(folder, "manifests", `${name}.json`),
      JSON.stringify({ ...manifest, install }),
    );
  }
  const model = await writeTinyModel(folder, { context: 32_768 });
  const writer = { model, gpu: "none", threads: 1, slots: 1, context_size: 32_768 };
  const command = [process.execPath, SERVER, "{port}", "hangs"];
  const openai = { server: "generic", managed: { command } };
  pipeline = await createPipeline({
    cwd: folder,
    dataDir: join(folder, "data"),
    searchPaths: [join(folder, "manifests")],
    capabilities: [
      { name: "inference", instanceId: "writer", config: writer },
      { name: "inference", instanceId: "server", config: { engine: "openai", openai } },
      "adapter-registry",
    ],
    queue: { maxRetries: 0 },
  });
});
afterAll(async () => {
  await pipeline[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function generate(more: object): Promise<Generation> {
  const kwargs = { ...GREEDY, max_tokens: 8, ...more };
  return generationSchema.parse(await run(pipeline, "writer", "generate", kwargs));
}

const deltaSchema = z.object({ type: z.literal("delta"), text: z.string() });

/** A stream that has given its first text, and a promise of what ends it. */
async function begin(
  instance: string,
  kwargs: Readonly<Record<string, unknown>>,
): Promise<{ readonly text: string; readonly ended: Promise<unknown> }> {
  const handle = await pipeline.queue.submitStream(instance, kwargs, { action: "stream" });
  const chunks = handle[Symbol.asyncIterator]();
  const first = await chunks.next();
  const { text } = deltaSchema.parse(first.value);
  const drained = async (): Promise<void> => {
    for (let next = await chunks.next(); next.done !== true; next = await chunks.next());
  };
  return { text, ended: failure(drained()) };
}

describe("an engine that crashes in the middle of a stream", () => {
  test("in the worker: the stream fails as a worker's end, and the next call starts it", async () => {
    const before = await generate({});
    const { ended } = await begin("writer", ENDLESS);
    const { pid } = pipeline.manager.instance("writer");
    // As llama.cpp ends at a bad pointer; SIGKILL would be taken for the kernel's, out of memory.
    process.kill(pid ?? 0, "SIGSEGV");
    expect(await ended).toMatchObject({ code: "WORKER_EXITED", category: "transient" });
    expect((await generate({})).text).toBe(before.text);
    expect(pipeline.manager.instance("writer").pid).not.toBe(pid);
  });

  test("in a managed server: the stream fails as its crash, and the next call starts it", async () => {
    const { text, ended } = await begin("server", { prompt: "hi" });
    const { pid } = pipeline.manager.instance("server");
    const [server = 0] = text.split(" ").map(Number);
    process.kill(server, "SIGKILL");
    expect(await ended).toMatchObject({
      code: "CAPABILITY_TRANSIENT",
      message: expect.stringMatching(/^engine_crashed: /u) as string,
    });
    await gone(server);
    const again = await begin("server", { prompt: "hi" });
    const [restarted = 0] = again.text.split(" ").map(Number);
    expect(restarted).not.toBe(server);
    expect(pipeline.manager.instance("server").pid).toBe(pid);
    process.kill(restarted, "SIGKILL");
    await again.ended;
  });
});

test("an adapter is applied by its id in the registry that runs beside it", async () => {
  const adapter = await writeTinyAdapter(join(folder, "adapter"));
  const facts = { id: "poet-1", task_type: "poems" };
  const stored = z
    .object({ record: z.object({ file_hash: z.string() }) })
    .parse(await run(pipeline, "adapter-registry", "store", { adapter, ...facts }));
  const named = await generate({ adapters: [{ registry_id: "poet-1" }] });
  expect(named.text).toBe((await generate({ adapters: [{ path: adapter }] })).text);
  expect(named.adapters).toEqual([{ id: "poet-1", sha256: stored.record.file_hash, scale: 1 }]);
  const verified = await run(pipeline, "adapter-registry", "verify", {});
  expect(verified).toMatchObject({ ok: true });
});
