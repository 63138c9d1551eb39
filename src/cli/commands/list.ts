import { existsSync } from "node:fs";
import {
  type DiscoveredManifest,
  installedManifestsDir,
  loadManifests,
  manifestSearchPaths,
  readCapabilitiesFile,
  type ResolvedConfig,
  workerCommand,
} from "../../config/index.ts";
import type { EnvironmentStatus } from "../../provision/index.ts";
import { hashCanonical } from "../../util/canonical-json.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import type { ListOutput } from "../json-output.ts";
import { color, harmless, print, printError, printJson, table } from "../terminal.ts";

export interface ListOptions extends GlobalOptions {
  readonly capabilities?: string;
  readonly envs?: boolean;
  readonly json?: boolean;
}

type Line = ListOutput["capabilities"][number];

export async function listCommand(options: ListOptions): Promise<number> {
  const loaded = await configOf(options);
  const config = {
    ...loaded,
    capabilitiesConfig: options.capabilities ?? loaded.capabilitiesConfig,
  };
  const { capabilities, problems } = await loadManifests(manifestSearchPaths(config));
  const lines = [...capabilities.values()].map((one) => lineOf(one, config));
  for (const name of await wantedNames(config.capabilitiesConfig)) {
    if (!lines.some((line) => line.name === name)) lines.push(missing(name));
  }
  const environments = options.envs === true ? await environmentsOf(config) : undefined;
  if (options.json === true) {
    const output: ListOutput = {
      drift_detection: config.substrate.driftDetection,
      capabilities: lines,
      ...(environments !== undefined && { environments }),
      problems: [...problems],
    };
    printJson(output);
    return EXIT.ok;
  }
  if (lines.length === 0) print("No capability is installed. Run: cjm-ctl install-all");
  else if (environments === undefined) print(table([HEADER, ...lines.map(cells)]));
  else print(environmentTable(lines, environments));
  for (const { source, key, message } of problems) {
    printError(`${color.yellow("warning")}: ${harmless(`${source}: ${key} ${message}`)}`);
  }
  if (!config.substrate.driftDetection) {
    printError("Drift is not checked: substrate.drift_detection is false");
  }
  return EXIT.ok;
}

const HEADER = ["NAME", "VERSION", "STATE", "ACTIONS", "DESCRIPTION"];

function lineOf(found: DiscoveredManifest, config: ResolvedConfig): Line {
  const { code, install, overrides } = found.manifest;
  const isInstalled = found.path.startsWith(installedManifestsDir(config));
  const isStartable = workerCommand(found) !== undefined;
  const usable = isInstalled ? "installed" : isStartable ? "shipped" : "not installed";
  return {
    name: found.name,
    version: code.version,
    state: found.supported ? usable : "unsupported",
    actions: Object.keys(code.actions ?? {}),
    description: code.description,
    environment: install.env_folder ?? install.conda_env,
    manifest: found.path,
    overrides: Object.keys(overrides),
    schema_drift: config.substrate.driftDetection ? driftOf(found) : "unchecked",
  };
}

/**
 * Whether the recorded config schema is still the one that was hashed when it was recorded; what
 * the worker itself says now is compared when it is loaded.
 */
function driftOf({
  manifest: { code, drift_tracking, overrides },
}: DiscoveredManifest): Line["schema_drift"] {
  const recorded = drift_tracking.config_schema_hash ?? undefined;
  // Python prints numbers differently, so its hashes are its own.
  if (recorded === undefined || code.sdk === "cjm-substrate") return "unknown";
  if ("config_schema" in overrides) return "overridden";
  return recorded === hashCanonical(code.config_schema ?? {}) ? "none" : "changed";
}

function missing(name: string): Line {
  return {
    name,
    version: "-",
    state: "not installed",
    actions: [],
    description: "run: cjm-ctl install-all",
    environment: "",
    manifest: null,
    overrides: [],
    schema_drift: "unknown",
  };
}

/** Loaded when it is asked for: it reads every source file. */
async function environmentsOf(
  config: ResolvedConfig,
): Promise<NonNullable<ListOutput["environments"]>> {
  const { environmentStatus } = await import("../../provision/index.ts");
  return (await environmentStatus(config)).map(
    ({ name, kind, state, detail, folder, version }) => ({
      name,
      kind: kind ?? null,
      state,
      detail: detail ?? null,
      folder: folder ?? null,
      version: version ?? null,
    }),
  );
}

const ADVICE: Readonly<Record<EnvironmentStatus["state"], string>> = {
  ready: "",
  stale: "capabilities.yaml or the source has changed; run: cjm-ctl install-all",
  broken: "files are missing; run: cjm-ctl install-all",
  not_installed: "run: cjm-ctl install-all",
  unlisted: "installed, and not in capabilities.yaml",
  unknown: "",
};

function environmentTable(
  lines: readonly Line[],
  environments: NonNullable<ListOutput["environments"]>,
): string {
  const rows = environments.map((one) => {
    const line = lines.find(({ name }) => name === one.name);
    const paint = one.state === "ready" ? color.green : color.yellow;
    const notes = [ADVICE[one.state], one.detail ?? "", ...notesOf(line)];
    const about = notes.filter((note) => note !== "").join("; ");
    return [
      one.name,
      one.kind ?? "path",
      paint(one.state),
      harmless(one.folder ?? line?.environment ?? ""),
      harmless(about),
    ];
  });
  return table([["NAME", "KIND", "STATE", "FOLDER", "NOTES"], ...rows]);
}

function cells(line: Line): string[] {
  const paint = line.state === "installed" ? color.green : color.yellow;
  const notes = notesOf(line);
  const note = notes.length === 0 ? "" : ` (${notes.join("; ")})`;
  return [
    line.name,
    line.version,
    paint(line.state),
    line.actions.join(","),
    harmless(`${line.description}${note}`),
  ];
}

function notesOf(line: Line | undefined): string[] {
  if (line === undefined) return [];
  return [
    ...(line.overrides.length === 0 ? [] : [`overridden: ${line.overrides.join(", ")}`]),
    ...(line.schema_drift === "changed"
      ? ["its config schema is not the one that was hashed"]
      : []),
  ];
}

/** Names in capabilities.yaml; a project without the file wants nothing. */
async function wantedNames(path: string): Promise<readonly string[]> {
  if (!existsSync(path)) return [];
  return (await readCapabilitiesFile(path)).capabilities.map(({ name }) => name);
}
