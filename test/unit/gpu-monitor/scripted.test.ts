import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Gpu } from "../../../workers/gpu-monitor/model.ts";
import { ScriptedSource } from "../../../workers/gpu-monitor/sources/scripted.ts";
import { scriptSchema } from "../../../workers/gpu-monitor/sources/script-schema.ts";
import { setDevice, SimulatedVram } from "../../fixtures/gpu/simulated-vram.ts";
import { GIB } from "./support.ts";

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "scripted-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const ONE_GPU = { uuid: "GPU-sim-0", name: "Sim, 24 GB", memory_total_bytes: 24 * GIB };

function open(script: unknown, now: () => number = () => 0): ScriptedSource {
  return new ScriptedSource(scriptSchema.parse(script), folder, now);
}

async function only(source: ScriptedSource): Promise<Gpu> {
  const { gpus } = await source.read();
  if (gpus[0] === undefined) throw new Error("no device");
  return gpus[0];
}

describe("the timeline of the scripted device", () => {
  test("changes foreign use when its moment comes and keeps what it does not name", async () => {
    let nowMs = 0;
    const source = open(
      {
        gpus: [{ ...ONE_GPU, memory_reserved_bytes: GIB }],
        timeline: [
          { at_ms: 0, gpu: 0, foreign_bytes: 2 * GIB, temperature_celsius: 40 },
          { at_ms: 1000, gpu: "GPU-sim-0", foreign_bytes: 8 * GIB },
        ],
      },
      () => nowMs,
    );
    expect(await only(source)).toMatchObject({
      memory_used_bytes: 3 * GIB,
      memory_free_bytes: 21 * GIB,
      temperature_celsius: 40,
    });
    nowMs = 1000;
    expect(await only(source)).toMatchObject({
      memory_used_bytes: 9 * GIB,
      temperature_celsius: 40,
      power_watts: null,
      unavailable: { power_watts: "not set by the script" },
    });
  });

  test("starts again after repeat_ms", async () => {
    let nowMs = 0;
    const timeline = [{ at_ms: 500, gpu: 0, foreign_bytes: GIB }];
    const source = open({ gpus: [ONE_GPU], timeline, repeat_ms: 1000 }, () => nowMs);
    const used: (number | null)[] = [];
    for (nowMs = 0; nowMs < 2500; nowMs += 500) used.push((await only(source)).memory_used_bytes);
    expect(used).toEqual([0, GIB, 0, GIB, 0]);
  });

  test("loses a device: every measurement is null with the reason", async () => {
    const gpu = await only(open({ gpus: [ONE_GPU], timeline: [{ at_ms: 0, gpu: 0, lost: true }] }));
    expect(gpu).toMatchObject({ lost: true, memory_used_bytes: null, processes: null });
    expect(gpu.unavailable["memory_used_bytes"]).toContain("lost");
  });

  test("names every bad member of a script at once", () => {
    const path = join(folder, "bad.json");
    writeFileSync(path, JSON.stringify({ gpus: [{ uuid: "" }], timeline: [{ at_ms: -1 }] }));
    expect(() => ScriptedSource.open(path)).toThrow(
      /gpus\[0\]\.uuid[\s\S]*memory_total_bytes[\s\S]*timeline\[0\]\.at_ms/u,
    );
  });
});

describe("memory that other processes publish", () => {
  const script = { gpus: [ONE_GPU], allocations: "vram" };

  test("is attributed to the pid that holds it and gone when the process dies", async () => {
    const source = open(script);
    await using holder = await hold(join(folder, "vram"), 4 * GIB);
    expect(await only(source)).toMatchObject({
      memory_used_bytes: 4 * GIB,
      processes: [{ pid: holder.pid, memory_bytes: 4 * GIB }],
    });
    await holder.end();
    expect(await only(source)).toMatchObject({ memory_used_bytes: 0, processes: [] });
  });

  test("drains away only after the script's recovery lag", async () => {
    let nowMs = 0;
    const source = open({ ...script, recovery_lag_ms: 500 }, () => nowMs);
    const vram = new SimulatedVram(join(folder, "vram"));
    vram.hold("GPU-sim-0", 2 * GIB);
    await only(source);
    vram.release();
    expect(await only(source)).toMatchObject({ memory_used_bytes: 2 * GIB, processes: [] });
    nowMs = 499;
    expect((await only(source)).memory_used_bytes).toBe(2 * GIB);
    nowMs = 500;
    expect((await only(source)).memory_used_bytes).toBe(0);
  });

  test("is not believed of a pid that no longer exists", async () => {
    const source = open(script);
    new SimulatedVram(join(folder, "vram")).release();
    const holding = { pid: 2 ** 22 + 1, allocations: [{ gpu: 0, bytes: GIB }] };
    writeFileSync(join(folder, "vram", "dead.json"), JSON.stringify(holding));
    expect((await only(source)).processes).toEqual([]);
  });

  test("keeps the last good content of a file that is half written, and says so", async () => {
    const source = open(script);
    const vram = new SimulatedVram(join(folder, "vram"));
    vram.hold("GPU-sim-0", GIB);
    const [name = ""] = (await import("node:fs")).readdirSync(join(folder, "vram"));
    await only(source);
    writeFileSync(join(folder, "vram", name), '{"pid": 1');
    const { gpus, notes } = await source.read();
    expect(gpus[0]?.memory_used_bytes).toBe(GIB);
    expect(notes.join()).toContain("is not a published allocation");
  });

  test("can change the device from outside", async () => {
    const source = open(script);
    setDevice(join(folder, "vram"), "GPU-sim-0", { foreign_bytes: 3 * GIB });
    expect(await only(source)).toMatchObject({ memory_used_bytes: 3 * GIB, processes: [] });
    setDevice(join(folder, "vram"), "GPU-sim-0", { lost: true });
    expect((await only(source)).lost).toBe(true);
  });

  test("fails like CUDA where all holders together would exceed the device", async () => {
    await using _holder = await hold(join(folder, "vram"), 20 * GIB);
    const vram = new SimulatedVram(join(folder, "vram"));
    expect(() => vram.allocate("GPU-sim-0", 5 * GIB, 24 * GIB)).toThrow("CUDA out of memory");
    vram.allocate("GPU-sim-0", 4 * GIB, 24 * GIB);
    vram.release();
  });
});

class Holder implements AsyncDisposable {
  readonly pid: number;
  readonly #child: ChildProcess;
  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
  }
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.end();
  }
}

async function hold(path: string, bytes: number): Promise<Holder> {
  const program = join(import.meta.dirname, "../../fixtures/gpu/hold-vram.ts");
  const child = spawn(process.execPath, [program, path, "GPU-sim-0", String(bytes)], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  return new Holder(child);
}
