import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createPipeline, type Pipeline } from "cjm-substrate";

const GIB = 1024 ** 3;
const GPU = "GPU-scripted";

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
/** Runs a worker of this folder or of the package the way this program itself is run. */
const command = (path: string, ...args: string[]): string[] => [
  process.execPath,
  ...process.execArgv,
  "--import",
  file("worker-package.ts"),
  file(path),
  ...args,
];

/** A machine with one GPU of 24 GiB that exists in a file. Disposing it removes all of it. */
export interface Machine extends AsyncDisposable {
  readonly pipeline: Pipeline;
}

/** A host with the monitor of that GPU, a writer that needs 14 GiB of it and a trainer of 20. */
export async function startMachine(): Promise<Machine> {
  const folder = await mkdtemp(join(tmpdir(), "cjm-hand-over-"));
  const manifests = join(folder, "manifests");
  const allocations = join(folder, "vram");
  const script = join(folder, "device.json");
  await mkdir(manifests);
  await mkdir(allocations);
  const gpus = [{ uuid: GPU, memory_total_bytes: 24 * GIB }];
  await writeFile(script, JSON.stringify({ gpus, allocations }));
  const all = {
    "gpu-monitor": await monitorManifest(),
    writer: toolManifest("writer", allocations, 14 * GIB),
    trainer: toolManifest("trainer", allocations, 20 * GIB),
  };
  for (const [name, manifest] of Object.entries(all)) {
    await writeFile(join(manifests, `${name}.json`), JSON.stringify(manifest));
  }
  const pipeline = await createPipeline({
    dataDir: join(folder, "data"),
    cwd: folder,
    searchPaths: [manifests],
    capabilities: [{ name: "gpu-monitor", config: { source: "scripted", script } }],
    systemMonitor: "gpu-monitor",
  });
  return {
    pipeline,
    async [Symbol.asyncDispose]() {
      await pipeline.stop({ drainMs: 1_000 });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** The shipped monitor, run from the package's own folder in place of an installed environment. */
async function monitorManifest(): Promise<unknown> {
  const shipped: unknown = JSON.parse(
    await readFile(file("../../manifests/gpu-monitor.json"), "utf8"),
  );
  const install = { cage: "group", command: command("../../workers/gpu-monitor/main.ts") };
  return typeof shipped === "object" ? { ...shipped, install } : shipped;
}

/** What provisioning would write for a tool: how it is started and what can be called. */
function toolManifest(name: string, folder: string, bytes: number): unknown {
  return {
    format_version: "2.0",
    install: { cage: "group", command: command("tool.ts", name, folder, GPU, String(bytes)) },
    code: {
      name,
      version: "1.0.0",
      sdk: "cjm",
      protocol: 1,
      actions: {
        run: {
          input_schema: { type: "object", properties: { after: {} } },
          output_schema: {},
          default: true,
        },
      },
      config_schema: { type: "object", properties: {} },
    },
  };
}
