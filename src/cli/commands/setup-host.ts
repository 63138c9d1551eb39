import { resolve } from "node:path";
import { hostLibraries, installHostLibraries } from "../../provision/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { confirm } from "../confirm.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson } from "../terminal.ts";

export interface SetupHostOptions extends GlobalOptions {
  readonly capabilities?: string;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export async function setupHostCommand(options: SetupHostOptions): Promise<number> {
  const loaded = await configOf(options);
  const capabilitiesConfig =
    options.capabilities === undefined ? loaded.capabilitiesConfig : resolve(options.capabilities);
  const config = { ...loaded, capabilitiesConfig };
  const libraries = await hostLibraries(config);
  const { npm, python } = libraries;
  if (options.json !== true) describe(libraries);
  const isWanted =
    npm.length > 0 && (options.yes === true || (await confirm(`Install them with npm?`)));
  if (isWanted) {
    await installHostLibraries(npm, { config, signal: new AbortController().signal });
  }
  if (options.json === true) printJson({ npm, python, installed: isWanted });
  else if (isWanted) print(`${color.green("installed")}  ${npm.join(", ")}`);
  return EXIT.ok;
}

function describe({ npm, python }: { npm: readonly string[]; python: readonly string[] }): void {
  if (npm.length + python.length === 0)
    print("No entry of capabilities.yaml names interface_libs.");
  for (const name of npm) print(`npm     ${name}`);
  for (const name of python) print(`python  ${name}  (a TypeScript host does not import it)`);
}
