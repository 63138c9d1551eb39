import { existsSync } from "node:fs";
import { join } from "node:path";
import { CjmError } from "cjm-substrate/worker";
import type { MonitorConfig } from "../config.ts";
import { AmdSource } from "./amd.ts";
import { NvidiaSmiSource } from "./nvidia-smi.ts";
import { NvmlDriver } from "./nvml-driver.ts";
import { ScriptedSource } from "./scripted.ts";
import { SystemSource, type DeviceSource, type OpenResult } from "./source.ts";

type DriverName = "nvml" | "nvidia-smi" | "amd";
type Opener = (config: MonitorConfig) => Promise<OpenResult>;

/** Best first: the driver's library, then its program, then the other vendor. */
const DRIVERS: Readonly<Record<DriverName, Opener>> = {
  nvml: (config) => openNvml(config.nvml_library),
  "nvidia-smi": (config) => NvidiaSmiSource.open(config.nvidia_smi),
  amd: () => Promise.resolve(AmdSource.open()),
};

/** Where containers, WSL2 and NixOS have the driver's library without telling the loader. */
const LIBRARY_FOLDERS = [
  "/usr/lib/wsl/lib",
  "/usr/local/nvidia/lib64",
  "/run/opengl-driver/lib",
] as const;

async function openNvml(library: string): Promise<OpenResult> {
  const opened = await NvmlDriver.open(library);
  if (typeof opened !== "string" || library.includes("/")) return opened;
  const path = LIBRARY_FOLDERS.map((folder) => join(folder, library)).find(existsSync);
  return path === undefined ? opened : NvmlDriver.open(path);
}

/**
 * Opens the source the configuration names, or the best one that answers.
 *
 * @throws {CjmError} if the named source cannot serve here; `auto` always finds one.
 */
export async function openSource(config: MonitorConfig): Promise<DeviceSource> {
  const { source } = config;
  if (source === "scripted") return ScriptedSource.open(config.script ?? "");
  if (source === "system") return new SystemSource(["GPUs are not looked for: source is system"]);
  return source === "auto" ? openBest(config) : openDriver(source, config);
}

async function openDriver(name: DriverName, config: MonitorConfig): Promise<DeviceSource> {
  const opened = await DRIVERS[name](config);
  if (typeof opened !== "string") return opened;
  throw new CjmError("CAPABILITY_RESOURCE", `Source ${name} cannot serve: ${opened}`);
}

async function openBest(config: MonitorConfig): Promise<DeviceSource> {
  const refusals: string[] = [];
  for (const open of Object.values(DRIVERS)) {
    const opened = await open(config);
    if (typeof opened !== "string") return opened;
    refusals.push(opened);
  }
  return new SystemSource(refusals);
}
