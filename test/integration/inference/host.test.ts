import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { z } from "zod";
import { generationSchema, type Generation } from "../../../workers/inference/task/schemas.ts";
import {
  beginStream,
  openInferenceHost,
  type InferenceHost,
} from "../../support/inference-host.ts";
import { failure, run } from "../capability/support.ts";
import { gone } from "../worker/start-worker.ts";
import { writeTinyAdapter, writeTinyModel } from "./tiny-model.ts";

const SERVER = join(import.meta.dirname, "../inference-openai/stubs/managed-driver.ts");
const GREEDY = { prompt: "hello world, this is", temperature: 0 };
/** More than fits between the worker and a reader who stops reading. */
const ENDLESS = { ...GREEDY, max_tokens: 16_000, grammar: "root ::= [a-z ] root" };

let host: InferenceHost;

beforeAll(async () => {
  host = await openInferenceHost(async (folder) => {
    const model = await writeTinyModel(folder, { context: 16_384 });
    const writer = { model, gpu: "none", threads: 1, slots: 1, context_size: 16_384 };
    const command = [process.execPath, SERVER, "{port}", "hangs"];
    const openai = { server: "generic", managed: { command } };
    return [
      { name: "inference", instanceId: "writer", config: writer },
      { name: "inference", instanceId: "server", config: { engine: "openai", openai } },
      "adapter-registry",
    ];
  });
});
afterAll(() => host[Symbol.asyncDispose]());

async function generate(more: object): Promise<Generation> {
  const kwargs = { ...GREEDY, max_tokens: 8, ...more };
  return generationSchema.parse(await run(host.pipeline, "writer", "generate", kwargs));
}

const deltaSchema = z.object({ type: z.literal("delta"), text: z.string() });

/** The first text of a stream, and a promise of what ends it. */
async function begin(
  instance: string,
  kwargs: Readonly<Record<string, unknown>>,
): Promise<{ readonly text: string; readonly ended: Promise<unknown> }> {
  const stream = await beginStream(host, instance, kwargs);
  return { text: deltaSchema.parse(stream.first).text, ended: failure(stream.drain()) };
}

describe("an engine that crashes in the middle of a stream", () => {
  test("in the worker: the stream fails as a worker's end, and the next call starts it", async () => {
    const before = await generate({});
    const { ended } = await begin("writer", ENDLESS);
    const { pid } = host.pipeline.manager.instance("writer");
    // As llama.cpp ends at a bad pointer; SIGKILL would be taken for the kernel's, out of memory.
    process.kill(pid ?? 0, "SIGSEGV");
    expect(await ended).toMatchObject({ code: "WORKER_EXITED", category: "transient" });
    expect((await generate({})).text).toBe(before.text);
    expect(host.pipeline.manager.instance("writer").pid).not.toBe(pid);
  });

  test("in a managed server: the stream fails as its crash, and the next call starts it", async () => {
    const { text, ended } = await begin("server", { prompt: "hi" });
    const { pid } = host.pipeline.manager.instance("server");
    const [server = 0] = text.split(" ").map(Number);
    process.kill(server, "SIGKILL");
    expect(await ended).toMatchObject({
      code: "CAPABILITY_TRANSIENT",
      details: { reason: "engine_crashed" },
    });
    await gone(server);
    const again = await begin("server", { prompt: "hi" });
    const [restarted = 0] = again.text.split(" ").map(Number);
    expect(restarted).not.toBe(server);
    expect(host.pipeline.manager.instance("server").pid).toBe(pid);
    process.kill(restarted, "SIGKILL");
    await again.ended;
  });
});

test("an adapter is applied by its id in the registry that runs beside it", async () => {
  const adapter = await writeTinyAdapter(join(host.folder, "adapter"));
  const facts = { id: "poet-1", task_type: "poems" };
  const stored = z
    .object({ record: z.object({ file_hash: z.string() }) })
    .parse(await run(host.pipeline, "adapter-registry", "store", { adapter, ...facts }));
  const named = await generate({ adapters: [{ registry_id: "poet-1" }] });
  expect(named.text).toBe((await generate({ adapters: [{ path: adapter }] })).text);
  expect(named.adapters).toEqual([{ id: "poet-1", sha256: stored.record.file_hash, scale: 1 }]);
  const verified = await run(host.pipeline, "adapter-registry", "verify", {});
  expect(verified).toMatchObject({ ok: true });
});
