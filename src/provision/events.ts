import type { EnvironmentKindName } from "../config/index.ts";

/** What became of one capability. */
export interface InstallResult {
  readonly name: string;
  readonly kind: EnvironmentKindName;
  /** `unchanged`: everything was as it should be and not a byte was written. */
  readonly outcome: "installed" | "unchanged" | "failed";
  /** Folder of the environment; absent for kind `path` and for a failure. */
  readonly folder?: string;
  readonly manifestPath?: string;
  /** Names of the task adapters that were registered with it. */
  readonly adapters: readonly string[];
  /** Log of the installation; absent where nothing was run. */
  readonly logPath?: string;
  readonly error?: Error;
  readonly durationMs: number;
}

/** What `installAll` announces while it works. */
export type InstallEvent =
  | { readonly type: "started"; readonly name: string; readonly kind: EnvironmentKindName }
  | { readonly type: "step"; readonly name: string; readonly text: string }
  | { readonly type: "output"; readonly name: string; readonly line: string }
  | { readonly type: "finished"; readonly name: string; readonly result: InstallResult }
  | { readonly type: "removed"; readonly name: string; readonly folder: string };
