import { existsSync } from "node:fs";
import {
  type DiscoveredManifest,
  installedManifestsDir,
  loadManifests,
  manifestSearchPaths,
  readCapabilitiesFile,
  workerCommand,
} from "../../config/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { recordedDrift } from "../drift.ts";
import { EXIT } from "../exit-codes.ts";
import { color, harmless, print, printError, printJson, table } from "../terminal.ts";

export interface ListOptions extends GlobalOptions {
  readonly capabilities?: string;
  readonly envs?: boolean;
  readonly json?: boolean;
}

interface Line {
  readonly name: string;
  readonly version: string;
  readonly state: "installed" | "shipped" | "not installed" | "unsupported";
  readonly actions: readonly string[];
  readonly description: string;
  readonly environment: string;
  readonly manifest: string | null;
  readonly overrides: readonly string[];
  /** What its newest worker said otherwise than the manifest; null where nobody looked. */
  readonly drift: readonly string[] | null;
}

export async function listCommand(options: ListOptions): Promise<number> {
  const config = await configOf(options);
  const { capabilities, problems } = await loadManifests(manifestSearchPaths(config));
  const installed = installedManifestsDir(config);
  const drift = await recordedDrift(config.dataDir, capabilities.values());
  const lines = [...capabilities.values()].map((one) => ({
    ...lineOf(one, installed),
    drift: drift.get(one.name) ?? null,
  }));
  const wanted = await wantedNames(options.capabilities ?? config.capabilitiesConfig);
  for (const name of wanted) {
    if (!lines.some((line) => line.name === name)) lines.push(missing(name));
  }
  if (options.json === true) {
    printJson({ capabilities: lines, problems });
    return EXIT.ok;
  }
  if (lines.length === 0) print("No capability is installed. Run: cjm-ctl install-all");
  else print(table([HEADER, ...lines.map((line) => cells(line, options.envs === true))]));
  if (!config.substrate.driftDetection) print("Drift is not looked for (drift_detection: false).");
  for (const { source, key, message } of problems) {
    printError(`${color.yellow("warning")}: ${harmless(`${source}: ${key} ${message}`)}`);
  }
  return EXIT.ok;
}

const HEADER = ["NAME", "VERSION", "STATE", "ACTIONS", "DESCRIPTION"];

function lineOf(found: DiscoveredManifest, installedDir: string): Omit<Line, "drift"> {
  const { code, install, overrides } = found.manifest;
  const isInstalled = found.path.startsWith(installedDir);
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
  };
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
    drift: null,
  };
}

function cells(line: Line, withEnvironment: boolean): string[] {
  const paint = line.state === "installed" ? color.green : color.yellow;
  const notes = note("overridden", line.overrides) + note("drifted", line.drift ?? []);
  const last = withEnvironment ? line.environment : line.description;
  return [
    line.name,
    line.version,
    paint(line.state),
    line.actions.join(","),
    harmless(`${last}${notes}`),
  ];
}

function note(what: string, members: readonly string[]): string {
  return members.length === 0 ? "" : ` (${what}: ${members.join(", ")})`;
}

/** Names in capabilities.yaml; a project without the file wants nothing. */
async function wantedNames(path: string): Promise<readonly string[]> {
  if (!existsSync(path)) return [];
  return (await readCapabilitiesFile(path)).capabilities.map(({ name }) => name);
}
