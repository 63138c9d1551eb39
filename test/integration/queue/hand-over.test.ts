import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";
import { composition, createPipeline, type Pipeline } from "../../../src/index.ts";

const GIB = 1024 ** 3;
const GPU = "GPU-simulated";
const at = (path: string): string => fileURLToPath(new URL(`../../../${path}`, import.meta.url));
const command = (path: string, ...args: string[]): string[] => [
  process.execPath,
  "--import",
  at("test/support/resolve-source.ts"),
  at(path),
  ...args,
];

/** A manifest of a fixture worker, as provisioning would write it. */
function manifest(name: string, folder: string, bytes: number): unknown {
  const input = {
    type: "object",
    properties: { end: { type: "string", enum: ["well", "error", "death"] } },
  };
  return {
    format_version: "2.0",
    install: {
      command: command("test/fixtures/workers/holds-vram.ts", name, folder, GPU, String(bytes)),
      cage: "group",
    },
    code: {
      name,
      version: "1.0.0",
      sdk: "cjm",
      protocol: 1,
      actions: { run: { input_schema: input, output_schema: {}, default: true } },
      config_schema: { type: "object", properties: {} },
    },
  };
}

interface Machine extends AsyncDisposable {
  readonly pipeline: Pipeline;
}

/** One GPU of 24 GiB that exists in a file, its monitor, a writer of 14 GiB and a trainer of 20. */
async function machine(): Promise<Machine> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-hand-over-"));
  const manifests = join(folder, "manifests");
  const allocations = join(folder, "vram");
  await mkdir(manifests);
  await mkdir(allocations);
  const script = join(folder, "device.json");
  const device = { uuid: GPU, memory_total_bytes: 24 * GIB };
  await writeFile(script, JSON.stringify({ gpus: [device], allocations }));
  const monitor = JSON.parse(await readFile(at("manifests/gpu-monitor.json"), "utf8")) as {
    install: object;
  };
  monitor.install = { cage: "group", command: command("workers/gpu-monitor/main.ts") };
  const all = {
    "gpu-monitor": monitor,
    writer: manifest("writer", allocations, 14 * GIB),
    trainer: manifest("trainer", allocations, 20 * GIB),
  };
  for (const [name, content] of Object.entries(all)) {
    await writeFile(join(manifests, `${name}.json`), JSON.stringify(content));
  }
  const pipeline = await createPipeline({
    dataDir: join(folder, "data"),
    cwd: folder,
    searchPaths: [manifests],
    capabilities: [{ name: "gpu-monitor", config: { source: "scripted", script } }],
    systemMonitor: "gpu-monitor",
    queue: { maxRetries: 0 },
  });
  return {
    pipeline,
    async [Symbol.asyncDispose]() {
      await pipeline.stop({ drainMs: 1_000 });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

const call = (capability: string, kwargs: Record<string, unknown> = {}) => ({ capability, kwargs });

async function evictions(pipeline: Pipeline): Promise<string[]> {
  const rows = await pipeline.journal.query();
  return rows
    .filter(({ eventType }) => eventType.startsWith("eviction_"))
    .map(({ eventType, capabilityInstanceId }) => `${eventType} ${capabilityInstanceId}`);
}

describe("one GPU that two tools need in turn", () => {
  test("is handed to the trainer and back, the writer's process living on", async () => {
    await using host = await machine();
    const { queue } = host.pipeline;
    const first = await (await queue.submit("writer")).result();
    const trained = await (await queue.submit("trainer")).ended();
    expect(trained).toMatchObject({ status: "completed" });
    const second = await (await queue.submit("writer")).result();
    expect(second).toEqual(first);
    expect(await evictions(host.pipeline)).toEqual([
      "eviction_requested writer",
      "eviction_confirmed writer",
      "eviction_requested trainer",
      "eviction_confirmed trainer",
    ]);
    expect(queue.getProfiles("writer")[0]?.vramPeakMb.max).toBe(14 * 1024);
    expect(queue.getProfiles("trainer")[0]?.vramPeakMb.max).toBe(20 * 1024);
  });

  test.each(["error", "death"])("comes back when the trainer ends in %s", async (end) => {
    await using host = await machine();
    const { queue } = host.pipeline;
    const first = await (await queue.submit("writer")).result();
    const run = await queue.submitComposition(
      composition({ train: call("trainer", { end }) }, { failFast: false }),
    );
    expect((await run.ended()).nodes[0]).toMatchObject({ state: "failed" });
    expect(await (await queue.submit("writer")).result()).toEqual(first);
    expect((await evictions(host.pipeline)).slice(0, 2)).toEqual([
      "eviction_requested writer",
      "eviction_confirmed writer",
    ]);
  });
});
