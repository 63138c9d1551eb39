import { join } from "node:path";
import { readCapabilitiesFile, type ResolvedConfig } from "../config/index.ts";
import { InstallLog } from "./install-log.ts";
import { runCommand } from "./run-command.ts";
import { specOf } from "./spec.ts";

/** What the capabilities share with the host, by who can install it. */
export interface HostLibraries {
  readonly npm: readonly string[];
  /** A TypeScript host cannot import these; they are only listed. */
  readonly python: readonly string[];
}

/** The packages under `interface_libs` of every entry, without the SDK itself. */
export async function hostLibraries(config: ResolvedConfig): Promise<HostLibraries> {
  const { capabilities } = await readCapabilitiesFile(config.capabilitiesConfig);
  const npm = new Set<string>();
  const python = new Set<string>();
  for (const entry of capabilities) {
    const { kind } = specOf(entry, config);
    const libraries = kind === "npm" || kind === "path" ? npm : python;
    for (const name of entry.interface_libs) if (!isSdk(name)) libraries.add(name);
  }
  return { npm: [...npm].sort(), python: [...python].sort() };
}

function isSdk(name: string): boolean {
  return (
    /^cjm-(?:substrate|worker)(?:$|[=<>!~@[ ])/u.test(name) || name.includes("cjm-substrate.git")
  );
}

/** Adds npm packages to the host's project, with the user's own npm configuration. */
export async function installHostLibraries(
  packages: readonly string[],
  { config, signal }: { readonly config: ResolvedConfig; readonly signal: AbortSignal },
): Promise<void> {
  if (packages.length === 0) return;
  await using log = new InstallLog(join(config.dataDir, "logs", "install", "setup-host.log"));
  const command = ["npm", "install", "--no-audit", "--no-fund", ...packages];
  await runCommand(command, { cwd: config.projectDir, env: process.env, signal, log });
}
