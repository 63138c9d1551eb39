import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { composition, item, type NodeSpec, ref } from "../../../src/composition/index.ts";
import { newDataDir, openQueue, type QueueHost, told } from "../../support/queue-host.ts";
import { type FakeInstance, untilCancelled } from "../../support/fake-executor.ts";

const cached = (kwargs: Record<string, unknown> = {}, more: Partial<NodeSpec> = {}): NodeSpec => ({
  capability: "tool",
  kwargs,
  cache: true,
  ...more,
});

async function open(dataDir?: string, more: Partial<FakeInstance> = {}): Promise<QueueHost> {
  const host = await openQueue(dataDir === undefined ? {} : { dataDir });
  host.executor.add("tool", {
    work: ({ kwargs }) => ({ got: kwargs }),
    codeHash: "sha256:code",
    isRepeatable: true,
    inputSchema: { properties: { path: { type: "string", format: "cjm-file" } } },
    ...more,
  });
  return host;
}

async function run(host: QueueHost, nodes: Record<string, NodeSpec>) {
  return await (await host.queue.submitComposition(composition(nodes))).result();
}

describe("a cached node", () => {
  test("runs once for the same inputs, and says so when its result is taken again", async () => {
    await using host = await open();
    const first = await run(host, { a: cached({ n: 1 }), b: cached({ in: ref("a", "got.n") }) });
    const again = await run(host, { a: cached({ n: 1 }), b: cached({ in: ref("a", "got.n") }) });
    expect(again.results).toEqual(first.results);
    expect(host.executor.calls).toHaveLength(2);
    const rows = await host.journal({ compositionId: again.id });
    expect(told(rows)).toEqual([
      "composition_submitted",
      "cache_hit",
      "cache_hit",
      "state_transition running→completed",
    ]);
    expect(rows[1]?.payload).toMatchObject({
      from_composition: first.id,
      from_node: "a",
      from_job: first.nodes[0]?.jobId,
    });
    const [stored] = await host.store.nodeRuns(again.id);
    expect(stored).toMatchObject({
      state: "completed",
      jobId: null,
      provenance: { cacheKey: rows[1]?.payload["cache_key"] },
    });
  });

  test("asks about more items than begin at once", async () => {
    await using host = await open();
    const many = {
      a: cached({ n: item() }, { forEach: Array.from({ length: 600 }, (_, n) => n) }),
    };
    const first = await run(host, many);
    expect(host.executor.calls).toHaveLength(600);
    const again = await run(host, many);
    expect(again.results).toEqual(first.results);
    expect(host.executor.calls).toHaveLength(600);
  });

  test("runs again for other inputs, other code or another configuration", async () => {
    await using host = await open();
    await run(host, { a: cached({ n: 1 }) });
    await run(host, { a: cached({ n: 2 }) });
    const spec = { work: () => "new", isRepeatable: true };
    host.executor.add("tool", { ...spec, codeHash: "sha256:other" });
    await run(host, { a: cached({ n: 1 }) });
    host.executor.add("tool", { ...spec, codeHash: "sha256:other", configHash: "sha256:new" });
    await run(host, { a: cached({ n: 1 }) });
    expect(host.executor.calls).toHaveLength(4);
  });

  test("knows a file by its content, not by its name", async () => {
    await using host = await open();
    const [one, two] = [join(host.dataDir, "one"), join(host.dataDir, "two")];
    await writeFile(one, "same");
    await writeFile(two, "same");
    await run(host, { a: cached({ path: one }) });
    await run(host, { a: cached({ path: two }) });
    expect(host.executor.calls).toHaveLength(1);
    await writeFile(two, "else");
    await run(host, { a: cached({ path: two }) });
    expect(host.executor.calls).toHaveLength(2);
  });

  test("knows a folder by its content where a file may stand", async () => {
    await using host = await open();
    const folder = join(host.dataDir, "folder");
    await mkdir(folder);
    await writeFile(join(folder, "weights"), "1");
    await run(host, { a: cached({ path: folder }) });
    await run(host, { a: cached({ path: folder }) });
    expect(host.executor.calls).toHaveLength(1);
    await writeFile(join(folder, "weights"), "2");
    await run(host, { a: cached({ path: folder }) });
    expect(host.executor.calls).toHaveLength(2);
  });

  test("is bypassed by force, which reaches the tool too, and its result is kept", async () => {
    await using host = await open();
    let n = 0;
    host.executor.add("tool", {
      work: () => (n += 1),
      codeHash: "sha256:code",
      isRepeatable: true,
    });
    expect((await run(host, { a: cached() })).results["a"]).toBe(1);
    expect((await run(host, { a: cached({}, { control: { force: true } }) })).results["a"]).toBe(2);
    expect(host.executor.calls[1]?.identity.control).toEqual({ force: true });
    expect((await run(host, { a: cached() })).results["a"]).toBe(2);
  });

  test("runs again when a file of its result is gone or has changed", async () => {
    await using host = await open();
    const path = join(host.dataDir, "out");
    host.executor.add("tool", {
      codeHash: "sha256:code",
      isRepeatable: true,
      work: async () => {
        await writeFile(path, "12345");
        const sha256 = `sha256:${"0".repeat(64)}`;
        return { __wire__: "file.ref", data: { path, size: 5, sha256 } };
      },
    });
    await run(host, { a: cached() });
    await run(host, { a: cached() });
    expect(host.executor.calls).toHaveLength(1);
    await run(host, { a: cached({}, { control: { verify: true } }) });
    expect(host.executor.calls).toHaveLength(2);
    await rm(path);
    await run(host, { a: cached() });
    expect(host.executor.calls).toHaveLength(3);
  });

  test("asks for each item of a list by itself", async () => {
    await using host = await open();
    const each = (values: number[]) => ({ each: cached({ n: item() }, { forEach: values }) });
    await run(host, each([1, 2]));
    const view = await run(host, each([2, 3, 1]));
    expect(host.executor.calls).toHaveLength(3);
    expect(view.results["each"]).toEqual([2, 3, 1].map((n) => ({ got: { n } })));
    expect(await host.queue.getComposition(view.id)).toEqual(view);
  });

  test("that names a file which is not there fails", async () => {
    await using host = await open();
    const handle = await host.queue.submitComposition(
      composition({ a: cached({ path: "/nowhere/at/all" }) }),
    );
    const view = await handle.ended();
    expect(view.nodes[0]).toMatchObject({ state: "failed", error: { category: "user_input" } });
  });

  test("is refused where the action does not say that it repeats, or its code has no hash", async () => {
    await using host = await open(undefined, { isRepeatable: false });
    const submit = (kwargs: Record<string, unknown>) =>
      host.queue.submitComposition(composition({ a: cached(kwargs) }));
    await expect(submit({})).rejects.toMatchObject({ code: "COMPOSITION_INVALID" });
    await (await submit({ seed: 7 })).result();
    host.executor.add("tool", { work: () => 1, isRepeatable: true });
    await expect(submit({})).rejects.toMatchObject({ code: "COMPOSITION_INVALID" });
  });

  test("is still known to the next host", async () => {
    const dataDir = await newDataDir();
    try {
      {
        await using host = await open(dataDir);
        await run(host, { a: cached({ n: 1 }) });
      }
      await using host = await open(dataDir);
      await run(host, { a: cached({ n: 1 }) });
      expect(host.executor.calls).toEqual([]);
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  });

  test("that was interrupted is kept when the next host has finished it", async () => {
    const dataDir = await newDataDir();
    try {
      let id = "";
      {
        await using host = await open(dataDir, { work: untilCancelled });
        const nodes = { a: cached({ n: 1 }) };
        id = (await host.queue.submitComposition(composition(nodes))).id;
        await host.executor.sent(1);
      }
      await using host = await open(dataDir);
      await host.queue.resume(id);
      await host.queue.waitForComposition(id);
      await run(host, { a: cached({ n: 1 }) });
      expect(host.executor.calls).toHaveLength(1);
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
  });

  test("asked about while its composition is cancelled does not run", async () => {
    await using host = await open();
    const handle = await host.queue.submitComposition(composition({ a: cached({ n: 9 }) }));
    await handle.cancel();
    expect((await handle.ended()).status).toBe("cancelled");
  });
});
