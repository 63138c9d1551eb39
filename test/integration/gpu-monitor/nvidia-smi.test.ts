import { copyFileSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { NvidiaSmiSource } from "../../../workers/gpu-monitor/sources/nvidia-smi.ts";
import type { DeviceSource } from "../../../workers/gpu-monitor/sources/source.ts";

const MIB = 1024 ** 2;
const FIXTURES = join(import.meta.dirname, "../../fixtures/gpu");
const PROGRAM = join(FIXTURES, "fake-nvidia-smi.sh");

let folder = "";
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "smi-"));
  process.env["SMI_REPORT"] = join(folder, "report.xml");
});
afterEach(() => {
  for (const name of ["SMI_REPORT", "SMI_TIMES", "SMI_COMPLAINT"]) delete process.env[name];
  rmSync(folder, { recursive: true, force: true });
});

function show(fixture: string): void {
  copyFileSync(join(FIXTURES, "nvidia-smi", fixture), join(folder, "next"));
  renameSync(join(folder, "next"), join(folder, "report.xml"));
}

async function opened(now?: () => number): Promise<DeviceSource> {
  const source = await NvidiaSmiSource.open(PROGRAM, now);
  if (typeof source === "string") throw new Error(source);
  return source;
}

const firstUuid = async (source: DeviceSource): Promise<string | undefined> =>
  (await source.read()).gpus[0]?.uuid;

describe("one long-lived nvidia-smi", () => {
  test("answers from the latest report of a program that is started once", async () => {
    show("rtx4090-r550.xml");
    await using source = await opened();
    expect(await source.read()).toMatchObject({
      driver: "550.54.15",
      gpus: [{ memory_total_bytes: 24564 * MIB }],
      notes: [expect.stringMatching(/reports every 500 ms; this is \d+ ms old/u)],
    });
    show("wsl2-r560.xml");
    await expect.poll(() => firstUuid(source)).toMatch(/^GPU-0e9f/u);
  });

  test("is no source where there is no program, no driver or no GPU", async () => {
    expect(await NvidiaSmiSource.open(join(folder, "nowhere"))).toMatch(/^nvidia-smi: .*ENOENT/u);
    process.env["SMI_TIMES"] = "1";
    process.env["SMI_COMPLAINT"] = "No devices were found";
    writeFileSync(join(folder, "report.xml"), "");
    expect(await NvidiaSmiSource.open(PROGRAM)).toBe("nvidia-smi: No devices were found");
  });

  test("that ends is started again; until then its devices count as lost once it is stale", async () => {
    show("rtx4090-r550.xml");
    process.env["SMI_TIMES"] = "1";
    process.env["SMI_COMPLAINT"] = "GPU is lost";
    let nowMs = 0;
    await using source = await opened(() => nowMs);
    nowMs = 1_000;
    expect((await source.read()).gpus[0]).toMatchObject({ lost: false });
    nowMs = 6_000;
    delete process.env["SMI_TIMES"];
    await expect
      .poll(async () => (await source.read()).notes.join())
      .toMatch(/silent for 6000 ms|this is 0 ms old/u);
    show("wsl2-r560.xml");
    await expect.poll(() => firstUuid(source)).toMatch(/^GPU-0e9f/u);
    expect((await source.read()).gpus[0]?.lost).toBe(false);
  });
});
