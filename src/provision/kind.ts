import type { EnvironmentKindName, ResolvedConfig } from "../config/index.ts";
import type { CapabilityEntry } from "../config/index.ts";
import type { InstallLog } from "./install-log.ts";

/** One capability to install, with every path absolute. */
export interface EnvironmentSpec {
  readonly name: string;
  readonly kind: EnvironmentKindName;
  readonly entry: CapabilityEntry;
  /** Folder of the worker's source, where the entry names a path. */
  readonly sourceDir: string | undefined;
  /** Folder of the compiled JavaScript of a worker that this package ships. */
  readonly compiledDir: string | undefined;
  /** Requirements or environment file of the entry. */
  readonly requirementsFile: string | undefined;
  readonly environmentFile: string | undefined;
  /** What pip installs beside the worker: requirements, interface and adapter libraries. */
  readonly requirements: readonly string[];
  /** A package of the original: its worker is started and introspected by its own rules. */
  readonly isOriginal: boolean;
  /** Installed instead of the SDK that this package carries. */
  readonly substrateSource: string | undefined;
}

/** What every step of one environment gets. */
export interface BuildContext {
  readonly config: ResolvedConfig;
  readonly log: InstallLog;
  readonly env: NodeJS.ProcessEnv;
  readonly signal: AbortSignal;
  /** Announces a step to whoever watches. */
  step(text: string): void;
}

/** How to start a worker in its environment, and how to ask it what it is. */
export interface WorkerStart {
  /** Absent for a worker of the original, which the host starts by module and class. */
  readonly command: readonly string[] | undefined;
  readonly introspect: readonly string[];
  readonly pythonPath?: string;
  /** Variables the command needs. */
  readonly env?: Readonly<Record<string, string>>;
}

/** One way of making environments. A kind holds no state. */
export interface EnvironmentKind {
  /** Everything of the machine that goes into the environment: interpreters, SDK, source, locks. */
  inputs(spec: EnvironmentSpec, context: BuildContext): Promise<Readonly<Record<string, unknown>>>;
  /** Builds the environment in `folder`, which exists and is empty, where it will stay. */
  build(spec: EnvironmentSpec, folder: string, context: BuildContext): Promise<void>;
  start(spec: EnvironmentSpec, folder: string): Promise<WorkerStart>;
}
