import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createPipeline, type Pipeline } from "../../../src/index.ts";

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
function manifest(name: string, ...args: readonly string[]): unknown {
  const input = {
    type: "object",
    properties: { end: { type: "string", enum: ["well", "error", "death"] } },
  };
  return {
    format_version: "2.0",
    install: {
      command: command("test/fixtures/workers/holds-vram.ts", name, ...args),
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

export interface Machine extends AsyncDisposable {
  readonly pipeline: Pipeline;
}

/** One GPU of 24 GiB that exists in a file, its monitor, a writer of 14 GiB and a trainer of 20. */
export async function machine(release = "well"): Promise<Machine> {
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
    writer: manifest("writer", allocations, GPU, String(14 * GIB), release),
    trainer: manifest("trainer", allocations, GPU, String(20 * GIB)),
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

/** What became of every release that was asked for, in order. */
export async function evictions(pipeline: Pipeline): Promise<string[]> {
  const rows = await pipeline.journal.query();
  return rows
    .filter(({ eventType }) => eventType.startsWith("eviction_"))
    .map(({ eventType, capabilityInstanceId }) => `${eventType} ${capabilityInstanceId}`);
}
