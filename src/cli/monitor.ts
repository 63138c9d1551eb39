import {
  loadManifests,
  manifestSearchPaths,
  type ResolvedConfig,
  workerCommand,
} from "../config/index.ts";

/** The monitor's name if it can be started; a machine without it runs GPU jobs one at a time. */
export async function monitorIfInstalled(
  config: ResolvedConfig,
  name: string | undefined,
): Promise<string | undefined> {
  if (name === undefined) return undefined;
  const { capabilities } = await loadManifests(manifestSearchPaths(config));
  const found = capabilities.get(name);
  return found !== undefined && workerCommand(found) !== undefined ? name : undefined;
}
