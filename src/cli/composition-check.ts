import { type Composition, validateComposition } from "../composition/index.ts";
import { loadManifests, manifestSearchPaths, type ResolvedConfig } from "../config/index.ts";

/**
 * Checks a composition against the capabilities that are installed or shipped; starts nothing.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` naming everything that is wrong.
 */
export async function checkAgainstManifests(
  composition: Composition,
  config: ResolvedConfig,
): Promise<void> {
  const { capabilities } = await loadManifests(manifestSearchPaths(config));
  validateComposition(composition, {
    names: capabilities.keys(),
    instance: (id, declaration) => {
      const code = capabilities.get(declaration?.capability ?? id)?.manifest.code;
      if (code === undefined) return undefined;
      return { capability: code.name, enabled: true, actions: code.actions, tasks: code.tasks };
    },
  });
}
