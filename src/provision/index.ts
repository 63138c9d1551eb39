export type { InstallEvent, InstallResult } from "./events.ts";
export { installAll } from "./install-all.ts";
export type { InstallAllOptions } from "./install-all.ts";
export { condaProgram } from "./kinds/conda.ts";
export { findPython } from "./python.ts";
export type { Python } from "./python.ts";
