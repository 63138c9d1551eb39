import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import koffi from "koffi";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Gpu } from "../../../workers/gpu-monitor/model.ts";
import { Monitor } from "../../../workers/gpu-monitor/monitor.ts";
import { NvmlDriver } from "../../../workers/gpu-monitor/sources/nvml-driver.ts";
import type { DeviceSource } from "../../../workers/gpu-monitor/sources/source.ts";
import { NvmlSource } from "../../../workers/gpu-monitor/sources/nvml.ts";

const GIB = 1024 ** 3;
const UNKNOWN = 2n ** 64n - 1n;
const SOURCE = join(import.meta.dirname, "../../fixtures/gpu/nvml/nvml-stub.c");
const hasCompiler = spawnSync("cc", ["--version"]).status === 0;

/** Generations of the driver's library; each is compiled and asked the same questions. */
const GENERATIONS = {
  "R418, first structs": ["-DPROCESS_INFO=1", "-DOLD_MEMORY", "-DOLD_REASONS"],
  "R470, second structs": ["-DPROCESS_INFO=2", "-DOLD_REASONS"],
  "R535, large process structs": ["-DPROCESS_INFO=35"],
  "R550, third call with second structs": ["-DPROCESS_INFO=3"],
  "R580, new temperature call": ["-DPROCESS_INFO=3", "-DNEW_TEMPERATURE"],
} as const;

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "nvml-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** The stub, and the controls of its devices: the same library, loaded a second time. */
class Stub {
  readonly path: string;
  readonly reset: () => void;
  readonly addDevice: (uuid: string, name: string, total: number) => void;
  readonly addMig: (gpu: number, slot: number, uuid: string, total: number) => void;
  readonly setMemory: (gpu: number, used: number, reserved: number) => void;
  readonly setSensors: (gpu: number, load: number, celsius: number, milliwatts: number) => void;
  readonly setHealth: (gpu: number, throttle: number, ecc: number, lost: number) => void;
  readonly setCount: (count: number) => void;
  readonly setHanging: (isHanging: number) => void;
  readonly addProcess: (gpu: number, graphics: number, pid: number, bytes: number | bigint) => void;
  readonly addMigProcess: (gpu: number, slot: number, pid: number, bytes: number) => void;
  readonly initialized: () => number;

  constructor(name: string, flags: readonly string[]) {
    this.path = join(folder, `${name.replaceAll(/\W+/gu, "-")}.so`);
    const args = ["-shared", "-fPIC", "-O1", "-Wall", "-Wno-unused-function", ...flags];
    const built = spawnSync("cc", [...args, "-o", this.path, SOURCE], { encoding: "utf8" });
    if (built.status !== 0) throw new Error(built.stderr);
    const library = koffi.load(this.path);
    this.reset = library.func("void stub_reset()");
    this.addDevice = library.func("void stub_add_device(const char *, const char *, uint64)");
    this.addMig = library.func("void stub_add_mig(uint32, uint32, const char *, uint64)");
    this.setMemory = library.func("void stub_set_memory(uint32, uint64, uint64)");
    this.setSensors = library.func("void stub_set_sensors(uint32, int, int, int)");
    this.setHealth = library.func("void stub_set_health(uint32, uint64, uint64, int)");
    this.setHanging = library.func("void stub_set_hanging(int)");
    this.setCount = library.func("void stub_set_count(uint32)");
    this.addProcess = library.func("void stub_add_process(uint32, int, uint32, uint64)");
    this.addMigProcess = library.func("void stub_add_mig_process(uint32, uint32, uint32, uint64)");
    this.initialized = library.func("int stub_initialized()");
    this.reset();
  }
}

async function openSource(stub: Stub, now?: () => number): Promise<NvmlSource> {
  const source = await NvmlSource.open(stub.path, now);
  if (typeof source === "string") throw new Error(source);
  return source;
}

async function openDriver(stub: Stub): Promise<DeviceSource> {
  const driver = await NvmlDriver.open(stub.path);
  if (typeof driver === "string") throw new Error(driver);
  return driver;
}

async function readOne(stub: Stub): Promise<Gpu> {
  using source = await openSource(stub);
  const [gpu] = source.read().gpus;
  if (gpu === undefined) throw new Error("no device");
  return gpu;
}

describe.runIf(hasCompiler).for(Object.entries(GENERATIONS))("NVML of %s", ([name, flags]) => {
  test("reads memory, sensors and processes through the library's own structs", async () => {
    const stub = new Stub(name, flags);
    stub.addDevice("GPU-aaaa", "NVIDIA RTX 4090, 24 GB", 24 * GIB);
    stub.setMemory(0, 6 * GIB, GIB / 2);
    stub.setSensors(0, 0, 41, 54_310);
    stub.setHealth(0, 0x44, 2, 0);
    stub.addProcess(0, 0, 4242, 5 * GIB);
    stub.addProcess(0, 0, 4343, UNKNOWN);
    stub.addProcess(0, 1, 900, GIB);
    stub.addProcess(0, 1, 4242, 5 * GIB);
    const gpu = await readOne(stub);
    expect(gpu).toMatchObject({
      uuid: "GPU-aaaa",
      name: "NVIDIA RTX 4090, 24 GB",
      vendor: "nvidia",
      memory_total_bytes: 24 * GIB,
      memory_used_bytes: 6.5 * GIB,
      memory_free_bytes: 17.5 * GIB,
      utilization_percent: 0,
      temperature_celsius: 41,
      power_watts: 54.31,
      power_limit_watts: 450,
      throttle_reasons: ["sw_power_cap", "hw_thermal_slowdown"],
      ecc_uncorrected_errors: 2,
      lost: false,
    });
    expect(gpu.processes?.map(({ pid, memory_bytes, kind }) => [pid, memory_bytes, kind])).toEqual([
      [4242, 5 * GIB, "both"],
      [4343, null, "compute"],
      [900, GIB, "graphics"],
    ]);
    const knowsReserve = !flags.some((flag) => flag === "-DOLD_MEMORY");
    expect(gpu.memory_reserved_bytes).toBe(knowsReserve ? GIB / 2 : null);
  });
});

describe.runIf(hasCompiler)("NVML", () => {
  let stub: Stub;
  beforeAll(() => {
    stub = new Stub("shared", ["-DPROCESS_INFO=35"]);
  });

  test("lists more processes than the first buffer holds", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    for (let pid = 1000; pid < 1200; pid += 1) stub.addProcess(0, 0, pid, pid);
    const { processes } = await readOne(stub);
    expect(processes).toHaveLength(200);
    expect(processes?.at(-1)).toMatchObject({ pid: 1199, memory_bytes: 1199 });
  });

  test("gives the reason where a device has no such sensor, and never 0", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    stub.setSensors(0, 5, 40, -1);
    const gpu = await readOne(stub);
    expect(gpu.power_watts).toBeNull();
    expect(gpu.unavailable).toEqual({ power_watts: "not supported by this device" });
  });

  test("lists the instances of a GPU in MIG mode in its place", async () => {
    stub.reset();
    stub.addDevice("GPU-a100", "NVIDIA A100", 40 * GIB);
    stub.addDevice("GPU-plain", "NVIDIA A100", 40 * GIB);
    stub.setSensors(0, 9, 35, 60_000);
    stub.addMig(0, 0, "MIG-one", 5 * GIB);
    stub.addMig(0, 3, "MIG-two", 10 * GIB);
    stub.addMigProcess(0, 3, 77, 2 * GIB);
    using source = await openSource(stub);
    const { gpus } = source.read();
    expect(gpus).toMatchObject([
      { uuid: "MIG-one", index: 0, parent_uuid: "GPU-a100", memory_used_bytes: 0, processes: [] },
      {
        uuid: "MIG-two",
        index: 0,
        memory_free_bytes: 8 * GIB,
        temperature_celsius: 35,
        processes: [{ pid: 77, memory_bytes: 2 * GIB }],
      },
      { uuid: "GPU-plain", index: 1, parent_uuid: null },
    ]);
    expect(gpus[0]?.unavailable["utilization_percent"]).toBe("not supported by this device");
  });

  test("reports a GPU that falls off the bus as lost, the others as they are, and finds it again", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    stub.addDevice("GPU-b", "GPU", GIB);
    await using monitor = new Monitor(await openDriver(stub), process.pid);
    expect((await monitor.sample()).gpus.map(({ lost }) => lost)).toEqual([false, false]);
    stub.setHealth(0, 0, 0, 1);
    const [a, b] = (await monitor.sample()).gpus;
    expect(a).toMatchObject({ uuid: "GPU-a", lost: true, memory_used_bytes: null });
    expect(a?.unavailable["memory_used_bytes"]).toBe("GPU is lost");
    expect(b).toMatchObject({ uuid: "GPU-b", lost: false });
    const later = await monitor.sample();
    expect(later.gpus.find(({ uuid }) => uuid === "GPU-a")?.lost).toBe(true);
    expect(later.notes).toEqual(["GPU 0 cannot be read: GPU is lost"]);
    stub.setHealth(0, 0, 0, 0);
    using fresh = await openSource(stub);
    expect(fresh.read().gpus.map(({ lost }) => lost)).toEqual([false, false]);
  });

  test("keeps a GPU that is no longer listed as lost, and shuts the library down at the end", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    stub.addDevice("GPU-b", "GPU", GIB);
    let nowMs = 0;
    const before = stub.initialized();
    {
      using source = await openSource(stub, () => nowMs);
      source.read();
      expect(stub.initialized()).toBe(before + 1);
      stub.setCount(1);
      nowMs = 10_000;
      expect(source.read().gpus).toMatchObject([
        { uuid: "GPU-a", lost: false },
        { uuid: "GPU-b", lost: true },
      ]);
    }
    expect(stub.initialized()).toBe(before);
  });

  test("reads what changes slowly once a second, and memory every time", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    stub.setSensors(0, 1, 40, 0);
    let nowMs = 0;
    using source = await openSource(stub, () => nowMs);
    source.read();
    stub.setSensors(0, 2, 50, 0);
    stub.setMemory(0, GIB / 2, 0);
    nowMs = 999;
    expect(source.read().gpus[0]).toMatchObject({
      temperature_celsius: 40,
      utilization_percent: 1,
      memory_used_bytes: GIB / 2,
    });
    nowMs = 1000;
    expect(source.read().gpus[0]).toMatchObject({
      temperature_celsius: 50,
      utilization_percent: 2,
    });
  });

  test("notices who begins to draw within a second, and then follows it", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    let nowMs = 0;
    using source = await openSource(stub, () => nowMs);
    source.read();
    stub.addProcess(0, 1, 900, GIB / 4);
    const pids = (): number[] | undefined =>
      source.read().gpus[0]?.processes?.map(({ pid }) => pid);
    nowMs = 1_000;
    expect(pids()).toEqual([900]);
    stub.addProcess(0, 1, 901, GIB / 4);
    nowMs = 1_100;
    expect(pids()).toEqual([900, 901]);
  });

  test("a driver that hangs holds its own readings and nothing else", async () => {
    stub.reset();
    stub.addDevice("GPU-a", "GPU", GIB);
    await using driver = await openDriver(stub);
    stub.setHanging(1);
    const reading = driver.read();
    const first = await Promise.race([reading, new Promise((done) => setImmediate(done, "free"))]);
    expect(first).toBe("free");
    stub.setHanging(0);
    expect((await reading).gpus).toMatchObject([{ uuid: "GPU-a", memory_total_bytes: GIB }]);
  });

  test("is no source where the driver lists no GPU or there is no library", async () => {
    stub.reset();
    expect(await NvmlSource.open(stub.path)).toBe("nvml: the driver lists no GPU");
    expect(await NvmlDriver.open(stub.path)).toBe("nvml: the driver lists no GPU");
    expect(await NvmlSource.open(join(folder, "libnvidia-ml.so.1"))).toMatch(/^nvml: .*libnvidia/u);
  });
});
