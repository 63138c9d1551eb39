import { removeCapability } from "../../provision/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { confirm } from "../confirm.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson } from "../terminal.ts";

export interface RemoveOptions extends GlobalOptions {
  readonly keepEnv?: boolean;
  readonly yes?: boolean;
  readonly json?: boolean;
}

export async function removeCommand(name: string, options: RemoveOptions): Promise<number> {
  const config = await configOf(options);
  const what = options.keepEnv === true ? "its manifest" : "its manifest and its environment";
  if (options.yes !== true && !(await confirm(`Remove "${name}": ${what}?`))) return EXIT.ok;
  const removed = await removeCapability(name, {
    config,
    keepEnvironment: options.keepEnv === true,
  });
  if (options.json === true) {
    const { manifests, folders, inUse } = removed;
    printJson({ name, manifests, folders, in_use: inUse });
    return EXIT.ok;
  }
  for (const path of [...removed.manifests, ...removed.folders]) {
    print(`${color.green("removed")}  ${path}`);
  }
  for (const path of removed.inUse) {
    print(`${color.yellow("in use")}   ${path} (the next install-all removes it)`);
  }
  return EXIT.ok;
}
