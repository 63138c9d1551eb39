import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { cagedCommand, probeCage } from "../../src/process/index.ts";
import { ProcReader, Telemetry, type GpuSource } from "../../src/telemetry/index.ts";
import type { Gpu } from "../../workers/gpu-monitor/model.ts";
import { Monitor } from "../../workers/gpu-monitor/monitor.ts";
import { NvidiaSmiSource } from "../../workers/gpu-monitor/sources/nvidia-smi.ts";
import { NvmlDriver } from "../../workers/gpu-monitor/sources/nvml-driver.ts";

const MIB = 1024 ** 2;
const HELD_MB = 2_048;
/** A context takes a few hundred MiB beside what is allocated in it. */
const CONTEXT_MB = 1_024;
const opened = await NvmlDriver.open("libnvidia-ml.so.1");
const skipped = typeof opened === "string" ? opened : undefined;
const cage = (await probeCage()).cage;

let folder = "";
let program = "";
let monitor: Monitor;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "gpu-"));
  program = join(folder, "allocate");
  if (typeof opened === "string") return;
  execFileSync("cc", ["-O1", "-o", program, join(import.meta.dirname, "allocate.c"), "-ldl"]);
  monitor = new Monitor(opened, process.pid);
});
afterAll(async () => {
  if (skipped === undefined) await monitor[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function firstGpu(): Promise<Gpu> {
  const [gpu] = (await monitor.sample()).gpus;
  if (gpu === undefined) throw new Error("no GPU");
  return gpu;
}

class Allocation implements AsyncDisposable {
  readonly #child: ChildProcess;
  private constructor(child: ChildProcess) {
    this.#child = child;
  }
  static async hold(kind: "group" | "pidns"): Promise<Allocation> {
    const [command = "", ...args] = cagedCommand(kind, [program, "0", String(HELD_MB)]);
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"], detached: true });
    await Promise.race([
      once(child.stdout, "data"),
      once(child, "exit").then(() => Promise.reject(new Error("the allocation failed"))),
    ]);
    return new Allocation(child);
  }
  get pid(): number {
    return this.#child.pid ?? 0;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    process.kill(-this.pid, "SIGKILL");
    await exited;
  }
}

describe.skipIf(skipped !== undefined)(`on a real GPU (${skipped ?? "present"})`, () => {
  test("NVML and nvidia-smi agree on every device", async () => {
    const smi = await NvidiaSmiSource.open("nvidia-smi");
    if (typeof smi === "string") throw new Error(smi);
    await using program = smi;
    const { gpus: reported } = await program.read();
    const { gpus } = await monitor.sample();
    console.log(JSON.stringify({ nvml: gpus, smi: reported }, null, 1));
    expect(gpus.map(({ uuid }) => uuid)).toEqual(reported.map(({ uuid }) => uuid));
    for (const [index, gpu] of gpus.entries()) {
      const other = reported[index];
      expect(gpu.name).toBe(other?.name);
      expect(gpu.memory_total_bytes).toBeCloseTo(other?.memory_total_bytes ?? 0, -7);
      const apart = Math.abs((gpu.memory_used_bytes ?? 0) - (other?.memory_used_bytes ?? 0));
      expect(apart).toBeLessThan(64 * MIB);
    }
  });

  test.for(["group", "pidns"] as const)(
    "a known allocation in cage %s is measured and attributed",
    async (kind, { skip }) => {
      if (kind === "pidns" && cage !== "pidns") skip("no PID namespaces here");
      const before = await firstGpu();
      const chunks = Promise.withResolvers<void>();
      const source: GpuSource = { watch: (hz, signal) => monitor.watch(hz, signal) };
      await using telemetry = new Telemetry({ source, processes: new ProcReader() });
      telemetry.start();
      telemetry.startJob("warm", "none", process.pid);
      using _first = telemetry.subscribe(({ type }) => {
        if (type === "gpu_sample") chunks.resolve();
      });
      await chunks.promise;
      await using held = await Allocation.hold(kind);
      telemetry.startJob("job", "holder", held.pid);
      const after = await firstGpu();
      const measured = await telemetry.endJob("job");
      console.log(JSON.stringify({ kind, measured, processes: after.processes }, null, 1));
      const deviceMb = ((after.memory_used_bytes ?? 0) - (before.memory_used_bytes ?? 0)) / MIB;
      expect(deviceMb).toBeGreaterThanOrEqual(HELD_MB * 0.99);
      expect(deviceMb).toBeLessThan(HELD_MB + CONTEXT_MB);
      const peakMb = measured.gpuPeakMb?.[after.uuid] ?? 0;
      expect(peakMb).toBeGreaterThanOrEqual(HELD_MB * 0.99);
      expect(peakMb).toBeLessThan(HELD_MB + CONTEXT_MB);
    },
  );

  test("memory is seen back in the first sample that follows its return", async () => {
    const before = await firstGpu();
    {
      await using _held = await Allocation.hold("group");
      expect((await firstGpu()).memory_used_bytes).toBeGreaterThan(before.memory_used_bytes ?? 0);
    }
    const startMs = performance.now();
    await expect
      .poll(async () => (await firstGpu()).memory_used_bytes, { interval: 20 })
      .toBeLessThanOrEqual((before.memory_used_bytes ?? 0) + 64 * MIB);
    console.log(`free again after ${Math.round(performance.now() - startMs)} ms`);
  });

  test("the same query inside and outside a PID namespace: what a caged monitor would see", async () => {
    await using held = await Allocation.hold("group");
    const script = `
      const { NvmlSource } = await import(${JSON.stringify(join(import.meta.dirname, "../../workers/gpu-monitor/sources/nvml.ts"))});
      const source = await NvmlSource.open("libnvidia-ml.so.1");
      console.log(JSON.stringify(source.read().gpus.map((gpu) => gpu.processes)));
      process.exit(0);`;
    const hook = join(import.meta.dirname, "../fixtures/gpu/from-source.ts");
    const run = (kind: "group" | "pidns"): string => {
      const own = [process.execPath, "--import", hook, "--input-type=module", "-e", script];
      const [command = "", ...args] = cagedCommand(kind, own);
      const { stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
      return stdout === "" ? stderr : stdout.trim();
    };
    const outside = run("group");
    console.log(JSON.stringify({ holder: held.pid, outside, inside: run("pidns") }, null, 1));
    expect(outside).toContain(`"pid":${held.pid}`);
  });
});
