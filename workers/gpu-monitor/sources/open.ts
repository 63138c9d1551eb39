import { CjmError } from "cjm-substrate/worker";
import type { MonitorConfig } from "../config.ts";
import { ScriptedSource } from "./scripted.ts";
import { SystemSource, type DeviceSource, type OpenResult } from "./source.ts";

type DriverName = "nvml" | "nvidia-smi" | "amd";
type Opener = (config: MonitorConfig) => Promise<OpenResult>;

/** Best first: the driver's library, then its program, then the other vendor. */
const DRIVERS: Readonly<Record<DriverName, Opener>> = {
  nvml: () => Promise.resolve("nvml: not built in"),
  "nvidia-smi": () => Promise.resolve("nvidia-smi: not built in"),
  amd: () => Promise.resolve("amd: not built in"),
};

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
