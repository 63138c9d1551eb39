import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { gpuSchema } from "../../../workers/gpu-monitor/model.ts";
import { AmdSource } from "../../../workers/gpu-monitor/sources/amd.ts";
import { GIB } from "./support.ts";

let root = "";
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), "sysfs-"));
});
afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

function write(files: Readonly<Record<string, string | number>>): void {
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), `${content}\n`);
  }
}

function addCard(card: string, address: string, files: Record<string, string | number>): void {
  const device = `devices/${address}`;
  write(
    Object.fromEntries(
      Object.entries({ vendor: "0x1002", ...files }).map(([name, value]) => [
        `${device}/${name}`,
        value,
      ]),
    ),
  );
  mkdirSync(join(root, "class/drm", card), { recursive: true });
  symlinkSync(join(root, device), join(root, "class/drm", card, "device"));
}

async function read(): Promise<ReturnType<typeof gpuSchema.parse>[]> {
  const source = AmdSource.open(root);
  if (typeof source === "string") throw new Error(source);
  return (await source.read()).gpus.map((gpu) => gpuSchema.parse(gpu));
}

describe("amdgpu's files", () => {
  test("give memory, sensors and the compute processes of each card", async () => {
    addCard("card1", "0000:43:00.0", {
      unique_id: "AB12CD",
      product_name: "AMD Instinct MI210",
      mem_info_vram_total: 64 * GIB,
      mem_info_vram_used: 10 * GIB,
      gpu_busy_percent: 0,
      "hwmon/hwmon3/power1_average": 41_000_000,
      "hwmon/hwmon3/power1_cap": 300_000_000,
      "hwmon/hwmon3/temp1_input": 36_500,
    });
    write({
      "module/amdgpu/version": "6.7.0",
      "class/kfd/kfd/topology/nodes/0/gpu_id": 0,
      "class/kfd/kfd/topology/nodes/1/gpu_id": 51_234,
      "class/kfd/kfd/topology/nodes/1/properties": `cpu_cores_count 0\nlocation_id ${0x43 << 8}\ndomain 0`,
      "class/kfd/kfd/proc/4242/vram_51234": 8 * GIB,
      "class/kfd/kfd/proc/4243/vram_51234": 0,
      "class/kfd/kfd/proc/4243/vram_999": GIB,
    });
    expect(await read()).toMatchObject([
      {
        uuid: "GPU-ab12cd",
        name: "AMD Instinct MI210",
        memory_free_bytes: 54 * GIB,
        utilization_percent: 0,
        temperature_celsius: 36.5,
        power_watts: 41,
        power_limit_watts: 300,
        ecc_uncorrected_errors: null,
        processes: [{ pid: 4242, memory_bytes: 8 * GIB }],
      },
    ]);
  });

  test("of a consumer card without serial number, sensors or compute driver say what is missing", async () => {
    addCard("card0", "0000:0b:00.0", { mem_info_vram_total: 8 * GIB });
    const [gpu] = await read();
    expect(gpu).toMatchObject({
      uuid: "AMD-0000:0b:00.0",
      memory_free_bytes: null,
      processes: null,
    });
    expect(gpu?.unavailable).toMatchObject({
      processes: "the kernel's compute driver (kfd) is not loaded",
      power_watts: "not in this device's files",
    });
  });

  test("are read in the order of the cards, those of other vendors and connectors left out", async () => {
    addCard("card10", "0000:0c:00.0", { mem_info_vram_total: GIB });
    addCard("card2", "0000:0b:00.0", { mem_info_vram_total: GIB });
    addCard("card0", "0000:00:02.0", { vendor: "0x8086" });
    mkdirSync(join(root, "class/drm/card2-DP-1"));
    expect((await read()).map(({ uuid }) => uuid)).toEqual([
      "AMD-0000:0b:00.0",
      "AMD-0000:0c:00.0",
    ]);
  });

  test("that vanish make the card lost; without any there is no source", async () => {
    expect(AmdSource.open(root)).toBe("amd: no amdgpu device");
    addCard("card0", "0000:0b:00.0", { mem_info_vram_total: GIB });
    const source = AmdSource.open(root);
    rmSync(join(root, "devices"), { recursive: true });
    if (typeof source === "string") throw new Error(source);
    expect((await source.read()).gpus[0]).toMatchObject({ lost: true });
  });
});
