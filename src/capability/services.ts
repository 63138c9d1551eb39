import type { DiscoveredManifest } from "../config/index.ts";
import type { SessionNames } from "../process/index.ts";
import type { Cage } from "../protocol/index.ts";
import type { DiagnosticsStore, JournalEntry } from "../store/index.ts";

export interface InstanceLimits {
  readonly startTimeoutMs: number;
  readonly cleanupTimeoutMs: number;
  readonly terminateGraceMs: number;
  /** How long a worker may show no sign of work while it loads. */
  readonly stallMs: number;
}

/** What every instance needs of the host; built once, in `host.ts`. */
export interface InstanceServices {
  readonly dataDir: string;
  /** Shared root of the capabilities' own folders. */
  readonly capabilityDataDir: string;
  readonly runFolder: string;
  readonly packageRoot: string;
  readonly modelsDir: string | undefined;
  readonly logLevel: string;
  readonly passEnv: readonly string[];
  readonly cage: Cage;
  readonly limits: InstanceLimits;
  /** Compare every worker with its manifest when it starts. */
  readonly driftDetection: boolean;
  readonly sessions: SessionNames;
  readonly diagnostics: Pick<DiagnosticsStore, "appendRecord" | "appendFrames" | "appendOutput">;
  /** Replaces every secret this host has handed out since it started. */
  readonly redact: (text: string) => string;
  /** Resolves after the rows are committed. */
  readonly journal: (entries: readonly JournalEntry[]) => Promise<void>;
  /** The capability's declared variables with their values; secrets included. */
  readonly workerEnvironment: (
    definition: DiscoveredManifest,
  ) => Promise<Readonly<Record<string, string>>>;
}
