export type { InstallEvent, InstallResult } from "./events.ts";
export { installAll } from "./install-all.ts";
export type { InstallAllOptions } from "./install-all.ts";
export { findPython } from "./python.ts";
export type { Python } from "./python.ts";
export { generateAdapterManifest, regenerateManifest, removeCapability } from "./installed.ts";
export type { InstalledOptions, Removed } from "./installed.ts";
export { setupRuntime } from "./runtime.ts";
export type { SetupRuntimeOptions, SetupRuntimeResult } from "./runtime.ts";
export { hostLibraries, installHostLibraries } from "./host-libraries.ts";
export type { HostLibraries } from "./host-libraries.ts";
export { environmentStatus } from "./status.ts";
export type { EnvironmentStatus } from "./status.ts";
export { detectFormat, FILE_FORMATS, validateFile } from "./validate.ts";
export type { FileFormat, Validation } from "./validate.ts";
export { leftoverWorkers } from "./machine.ts";
// What `doctor` asks of the machine; the command line itself starts no process of a worker.
export { probeCage } from "../process/index.ts";
