import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { type DiscoveredManifest, workerCommand } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import { buildWorkerEnvironment, socketPath, type WorkerSpec } from "../process/index.ts";
import type { Cage } from "../protocol/index.ts";
import { randomHex } from "../util/ids.ts";
import type { BoundAdapter } from "./adapters.ts";
import type { InstanceServices } from "./services.ts";

export interface SpawnRequest {
  readonly definition: DiscoveredManifest;
  readonly adapters: readonly BoundAdapter[];
  /** The GPU the worker gets to see; null: whatever the host sees. */
  readonly gpuUuid: string | null;
}

export interface Spawn {
  readonly spec: WorkerSpec;
  /** Private file into which a worker of the original writes its records. */
  readonly originalDiagnostics: string | undefined;
}

/** True for a capability of the published Python package, served by that package's own worker. */
export function isOriginal({ manifest }: DiscoveredManifest): boolean {
  const { install, code } = manifest;
  return install.command === undefined && code.entry === undefined && code.module !== "";
}

/**
 * Everything a worker is started with.
 *
 * @throws {CjmError} `CAPABILITY_NOT_INSTALLED` without an environment; `SECRET_MISSING`.
 */
export async function prepareSpawn(
  { definition, adapters, gpuUuid }: SpawnRequest,
  services: InstanceServices,
): Promise<Spawn> {
  const { name, manifest } = definition;
  const { install } = manifest;
  const ownFolder = join(services.capabilityDataDir, name);
  await mkdir(ownFolder, { recursive: true });
  const socket = socketPath(services.runFolder, `w${randomHex(6)}.sock`);
  const isForeign = isOriginal(definition);
  const specs = adapters.map(({ spec }) => spec);
  const originalDiagnostics = isForeign ? `${socket}.db` : undefined;
  const env = buildWorkerEnvironment({
    host: process.env,
    pass: services.passEnv,
    install: install.env_vars,
    declared: await services.workerEnvironment(definition),
    protocol: {
      CJM_PROTOCOL: "1",
      CJM_LISTEN: `unix:${socket}`,
      CJM_LOG_LEVEL: services.logLevel,
      CJM_CAPABILITY_DATA_DIR: services.capabilityDataDir,
      CAPABILITY_DATA_DIR: ownFolder,
      // Set before Node starts: a worker's own call would come after its modules are compiled.
      NODE_COMPILE_CACHE: join(services.dataDir, "compile-cache"),
      // AMD's runtime reads the CUDA name too.
      ...(gpuUuid !== null && { CUDA_VISIBLE_DEVICES: gpuUuid }),
      ...(services.modelsDir !== undefined && { CJM_MODELS_DIR: services.modelsDir }),
      ...(specs.length > 0 && !isForeign && { CJM_ADAPTERS: specs.join(",") }),
      ...(originalDiagnostics !== undefined && { CJM_DIAGNOSTICS_DB: originalDiagnostics }),
    },
  });
  const spec: WorkerSpec = {
    capability: name,
    sessionId: services.sessions.next(),
    command: isForeign
      ? originalCommand(definition, { socket, specs, packageRoot: services.packageRoot })
      : ownCommand(definition),
    cwd: install.env_folder ?? services.packageRoot,
    env,
    cage: cageFor(install.cage, services.cage),
    startTimeoutMs: services.limits.startTimeoutMs,
    ...(isForeign && { foreignAddress: `unix:${socket}` }),
  };
  return { spec, originalDiagnostics };
}

function ownCommand(definition: DiscoveredManifest): readonly string[] {
  const command = workerCommand(definition);
  if (command !== undefined) return command;
  const { name } = definition;
  throw new CjmError(
    "CAPABILITY_NOT_INSTALLED",
    `Capability "${name}" has no environment yet; run: cjm-ctl install-all --only ${name}`,
  );
}

/** That package takes a listening descriptor, which Node cannot hand over: a launcher binds it. */
function originalCommand(
  { manifest: { install, code } }: DiscoveredManifest,
  parts: {
    readonly socket: string;
    readonly specs: readonly string[];
    readonly packageRoot: string;
  },
): readonly string[] {
  const python = install.python_path;
  const launcher = join(parts.packageRoot, "python", "launch_original.py");
  const adapters = parts.specs.length === 0 ? [] : ["--adapters", parts.specs.join(",")];
  const worker = ["-m", "cjm_substrate.core.worker", "--module", code.module];
  return [python, launcher, parts.socket, python, ...worker, "--class", code.class, ...adapters];
}

function cageFor(wanted: "auto" | "group", strongest: Cage): Cage {
  return wanted === "group" ? "group" : strongest;
}
