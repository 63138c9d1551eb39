import { join } from "node:path";
import { type InstanceServices, resolveWorkerEnv } from "../capability/index.ts";
import { type DiscoveredManifest, hostPackage, type ResolvedConfig } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import type { SessionNames } from "../process/index.ts";
import type { Cage } from "../protocol/index.ts";
import type { DiagnosticsStore, JournalEvent, SecretStore, StorePort } from "../store/index.ts";
import type { SecretRedactor } from "./secret-redactor.ts";

/** Time a worker has for its cleanup hook. */
const CLEANUP_TIMEOUT_MS = 2_000;

export interface ServiceParts {
  readonly config: ResolvedConfig;
  readonly runFolder: string;
  readonly cage: Cage;
  readonly sessions: SessionNames;
  readonly diagnostics: DiagnosticsStore;
  readonly store: StorePort;
  readonly secrets: SecretStore;
  /** Tells subscribers of the rows that workers' lives leave. */
  readonly announcer: { readonly announce: (events: readonly JournalEvent[]) => void };
  readonly redactor: SecretRedactor;
}

/** What the host's instances share. */
export function instanceServices(parts: ServiceParts): InstanceServices {
  const { config, store } = parts;
  const capabilityDataDir = join(config.dataDir, "data");
  return {
    dataDir: config.dataDir,
    capabilityDataDir,
    runFolder: parts.runFolder,
    packageRoot: hostPackage().root,
    modelsDir: config.modelsDir,
    logLevel: process.env["CJM_LOG_LEVEL"] ?? "info",
    passEnv: config.substrate.passEnv,
    cage: parts.cage,
    limits: {
      startTimeoutMs: config.substrate.startTimeoutSeconds * 1_000,
      cleanupTimeoutMs: CLEANUP_TIMEOUT_MS,
      terminateGraceMs: config.substrate.terminateGraceSeconds * 1_000,
      stallMs: config.substrate.prefetchStallThresholdSeconds * 1_000,
    },
    driftDetection: config.substrate.driftDetection,
    redact: parts.redactor.redact,
    sessions: parts.sessions,
    diagnostics: parts.diagnostics,
    journal: async (entries) => {
      const { events } = await store.stage(
        entries.map((event) => ({ op: "journal.append", event })),
      );
      parts.announcer.announce(events);
    },
    workerEnvironment: (definition) => workerEnvironment(definition, parts, capabilityDataDir),
  };
}

/** @throws {CjmError} `SECRET_MISSING` naming every required variable that has no value. */
async function workerEnvironment(
  { name, manifest }: DiscoveredManifest,
  { config, secrets, redactor, diagnostics }: ServiceParts,
  capabilityDataDir: string,
): Promise<Readonly<Record<string, string>>> {
  const specs = manifest.code.worker_env ?? [];
  // A secret set since the last look reaches a worker now: from here on it must not get out.
  const all = await secrets.values();
  redactor.learn(all);
  diagnostics.learn(all);
  const values: Record<string, string> = {};
  for (const { secret, name: key } of specs) {
    const value = secret ? await secrets.get({ capability: name, key }) : undefined;
    if (value !== undefined) values[key] = value;
  }
  const resolved = resolveWorkerEnv({
    capability: name,
    specs,
    secrets: values,
    installed: manifest.install.env_vars,
    placeholders: {
      CJM_MODELS_DIR: config.modelsDir,
      CJM_CAPABILITY_DATA_DIR: capabilityDataDir,
      CAPABILITY_DATA_DIR: join(capabilityDataDir, name),
      CAPABILITY_NAME: name,
    },
  });
  if (resolved.missing.length === 0) return resolved.values;
  const commands = resolved.missing.map((key) => `cjm-ctl set-secret ${name} ${key}`);
  throw new CjmError(
    "SECRET_MISSING",
    `Capability "${name}" needs ${resolved.missing.join(", ")}; set with: ${commands.join("; ")}`,
    { fieldsInvalid: resolved.missing },
  );
}
