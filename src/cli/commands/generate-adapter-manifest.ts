import { generateAdapterManifest } from "../../provision/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson } from "../terminal.ts";

export interface AdapterManifestOptions extends GlobalOptions {
  readonly json?: boolean;
}

export async function generateAdapterManifestCommand(
  environment: string,
  target: string,
  options: AdapterManifestOptions,
): Promise<number> {
  const config = await configOf(options);
  const { path, manifest } = await generateAdapterManifest(environment, target, { config });
  if (options.json === true) printJson({ path, manifest });
  else print(`${color.green("written")}  ${path} (task ${manifest.task_name})`);
  return EXIT.ok;
}
