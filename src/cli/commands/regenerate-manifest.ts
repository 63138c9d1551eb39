import { resolve } from "node:path";
import { readCapabilitiesFile } from "../../config/index.ts";
import { regenerateManifest } from "../../provision/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson } from "../terminal.ts";

export interface RegenerateOptions extends GlobalOptions {
  readonly capabilities?: string;
  readonly package?: string;
  readonly json?: boolean;
}

export async function regenerateManifestCommand(
  name: string,
  options: RegenerateOptions,
): Promise<number> {
  const config = await configOf(options);
  const listed = options.capabilities === undefined ? undefined : resolve(options.capabilities);
  const packageSource = options.package ?? (await packageIn(listed, name));
  const path = await regenerateManifest(name, { config, packageSource });
  if (options.json === true) printJson({ name, manifest: path });
  else print(`${color.green("written")}  ${path}`);
  return EXIT.ok;
}

async function packageIn(path: string | undefined, name: string): Promise<string | undefined> {
  if (path === undefined) return undefined;
  const { capabilities } = await readCapabilitiesFile(path);
  return capabilities.find((entry) => entry.name === name)?.package;
}
