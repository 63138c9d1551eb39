import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { z } from "zod";
import { gpuMonitor } from "../../../workers/gpu-monitor/capability.ts";
import { SimulatedVram } from "../../fixtures/gpu/simulated-vram.ts";
import { bareCall } from "./support-call.ts";
import { GIB } from "./support.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "gpu-monitor-"));
  writeFileSync(
    join(folder, "script.json"),
    JSON.stringify({
      gpus: [
        { uuid: "GPU-0", memory_total_bytes: 24 * GIB },
        { uuid: "GPU-1", memory_total_bytes: 8 * GIB },
      ],
      timeline: [
        { at_ms: 0, gpu: 0, foreign_bytes: 2 * GIB, utilization_percent: 0 },
        { at_ms: 0, gpu: 1, utilization_percent: 35 },
      ],
      allocations: "vram",
    }),
  );
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

async function opened(config: object): Promise<Opened> {
  const capability = gpuMonitor(process.pid);
  const parsed = capability.config.parse(config);
  await capability.initialize?.(parsed, bareCall(parsed));
  return new Opened(capability, parsed);
}

type Config = z.output<ReturnType<typeof gpuMonitor>["config"]>;

class Opened implements AsyncDisposable {
  readonly capability: ReturnType<typeof gpuMonitor>;
  readonly #config: Config;
  constructor(capability: ReturnType<typeof gpuMonitor>, config: Config) {
    this.capability = capability;
    this.#config = config;
  }
  /** Input and output checked by the action's own schemas, as the runtime does. */
  async run(name: string, input: unknown = {}): Promise<Record<string, unknown>> {
    const action = this.capability.actions[name];
    if (action === undefined || action.streaming === true) throw new Error(`no action ${name}`);
    const output = await action.handler(action.input.parse(input), bareCall(this.#config) as never);
    return action.output.parse(output) as Record<string, unknown>;
  }
  async *watch(hz: number): AsyncGenerator<Record<string, unknown>> {
    const action = this.capability.actions["watch"];
    if (action?.streaming !== true) throw new Error("watch does not stream");
    const stop = new AbortController();
    const call = bareCall(this.#config, stop.signal) as never;
    try {
      for await (const chunk of action.handler(action.input.parse({ hz }), call)) {
        yield action.output.parse(chunk) as Record<string, unknown>;
      }
    } finally {
      stop.abort();
    }
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.capability.cleanup?.();
  }
}

describe("gpu-monitor on the scripted device", () => {
  const scripted = (): object => ({ source: "scripted", script: join(folder, "script.json") });

  test("reports GPUs in bytes with UUIDs, the source by name, zero load as zero", async () => {
    await using monitor = await opened(scripted());
    expect(await monitor.run("report")).toMatchObject({
      source: "scripted",
      gpus: [
        { uuid: "GPU-0", memory_used_bytes: 2 * GIB, utilization_percent: 0 },
        { uuid: "GPU-1", memory_used_bytes: 0, utilization_percent: 35 },
      ],
      ram: { total_bytes: expect.any(Number) as number },
    });
  });

  test("answers the original's protocol in megabytes over all GPUs", async () => {
    await using monitor = await opened(scripted());
    new SimulatedVram(join(folder, "vram")).hold("GPU-1", GIB);
    expect(await monitor.capability.monitor?.getSystemStatus()).toMatchObject({
      gpu_type: "Simulated",
      gpu_total_memory_mb: 32 * 1024,
      gpu_used_memory_mb: 3 * 1024,
      gpu_free_memory_mb: 29 * 1024,
      gpu_load_percent: 35,
      memory_available_mb: expect.any(Number) as number,
    });
    expect(await monitor.capability.monitor?.listProcesses()).toEqual([
      expect.objectContaining({ pid: process.pid, gpu_index: 1, gpu_memory_mb: 1024, own: true }),
    ]);
    expect(await monitor.run("list_processes")).toMatchObject({
      processes: [{ pid: process.pid, gpu_uuid: "GPU-1", gpu_memory_bytes: GIB }],
    });
  });

  test("streams samples, and the recovery in the first sample after the memory is back", async () => {
    await using monitor = await opened(scripted());
    const vram = new SimulatedVram(join(folder, "vram"));
    vram.hold("GPU-0", 4 * GIB);
    const seen: unknown[] = [];
    for await (const chunk of monitor.watch(100)) {
      seen.push(chunk["event"] ?? chunk["type"]);
      if (seen.length === 1) vram.release();
      if (chunk["type"] === "event") break;
    }
    expect(seen).toEqual(["sample", "sample", "vram_recovered"]);
  });

  test("advises from the memory that is free now", async () => {
    await using monitor = await opened(scripted());
    expect(await monitor.run("compute_budget")).toMatchObject({ training_slots: 2 });
    expect(await monitor.run("best_device")).toMatchObject({ device: "cuda", gpu_uuid: "GPU-0" });
    expect(await monitor.run("resolve_dtype", { param_count: 7e9 })).toMatchObject({
      dtype: "bfloat16",
      gpu_uuid: "GPU-0",
    });
  });
});

describe("gpu-monitor without a GPU", () => {
  test("takes a changed configuration, whether or not a release was fired", async () => {
    await using monitor = await opened({ source: "system" });
    const { config } = monitor.capability;
    const next = config.parse({ source: "scripted", script: join(folder, "script.json") });
    await monitor.capability.initialize?.(next, bareCall(next));
    expect(await monitor.run("report")).toMatchObject({ source: "scripted" });
  });

  test("says so, and measures CPU, memory and disks all the same", async () => {
    await using monitor = await opened({ source: "system" });
    const report = await monitor.run("report");
    expect(report).toMatchObject({ source: "system", gpus: [], driver: null });
    expect(report["notes"]).toEqual([expect.stringContaining("not looked for")]);
    expect(await monitor.capability.monitor?.getSystemStatus()).toMatchObject({
      gpu_type: "None",
      gpu_total_memory_mb: null,
      memory_total_mb: expect.any(Number) as number,
    });
  });

  test("refuses a driver that is not there, and a script that is not given", async () => {
    await expect(
      opened({ source: "nvml", nvml_library: "/nowhere/libnvidia-ml.so" }),
    ).rejects.toThrow("Source nvml cannot serve");
    await expect(opened({ source: "scripted" })).rejects.toThrow("needs a script");
  });
});
