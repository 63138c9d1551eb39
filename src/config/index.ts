export {
  capabilitiesFileSchema,
  capabilityEntrySchema,
  readCapabilitiesFile,
} from "./capabilities-file.ts";
export type {
  CapabilitiesFile,
  CapabilityEntry,
  EnvironmentKindName,
} from "./capabilities-file.ts";
export { describeProblem, problemsError, problemsOf } from "./file-problem.ts";
export type { FileProblem, Locate } from "./file-problem.ts";
export { resolveIncludes } from "./includes.ts";
export { resolveInstanceConfig } from "./instance-config.ts";
export type { InstanceConfigInput, InstanceConfigResult } from "./instance-config.ts";
export { configKeys } from "./keys.ts";
export type { ConfigKey } from "./keys.ts";
export { loadConfig } from "./load.ts";
export type { LoadConfigOptions, ResolvedConfig } from "./load.ts";
export {
  installedManifestsDir,
  loadManifests,
  manifestSearchPaths,
  readManifest,
  workerCommand,
  writeAdapterManifest,
  writeManifest,
} from "./manifests.ts";
export type { DiscoveredAdapter, DiscoveredManifest, LoadedManifests } from "./manifests.ts";
export { hostPackage } from "./package-root.ts";
export { currentPlatform } from "./platform.ts";
export { cjmConfigSchema } from "./schema.ts";
export type { CjmConfig, CjmConfigFile } from "./schema.ts";
export { checkYaml, parseYaml, readYaml } from "./yaml-file.ts";
export type { YamlSource } from "./yaml-file.ts";
