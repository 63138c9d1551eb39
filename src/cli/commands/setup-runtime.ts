import { setupRuntime } from "../../provision/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson } from "../terminal.ts";

export interface SetupRuntimeCommandOptions extends GlobalOptions {
  readonly force?: boolean;
  readonly mirror?: string;
  readonly file?: string;
  readonly sha256?: string;
  readonly json?: boolean;
}

export async function setupRuntimeCommand(options: SetupRuntimeCommandOptions): Promise<number> {
  const config = await configOf(options);
  const { force, file, sha256 } = options;
  const mirror = options.mirror ?? process.env["CJM_MICROMAMBA_MIRROR"];
  const result = await setupRuntime({ config, force, mirror, file, sha256 });
  if (options.json === true) printJson(result);
  else print(`${color.green(result.outcome)}  ${result.path}`);
  return EXIT.ok;
}
