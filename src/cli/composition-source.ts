import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import {
  actionOf,
  type Composition,
  parseCompositionFile,
  parseInputText,
  type PathSchemas,
  placePaths,
} from "../composition/index.ts";
import {
  loadManifests,
  manifestSearchPaths,
  readYaml,
  resolveIncludes,
  type ResolvedConfig,
} from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import { isRecord } from "../util/record.ts";
import { forceAll } from "./force.ts";

/** A composition file as it was read: includes are in place, paths are absolute. */
export interface CompositionSource {
  /** What a live host is sent. */
  readonly document: unknown;
  readonly composition: Composition;
  /** Inputs that are paths. */
  readonly pathInputs: ReadonlySet<string>;
}

/**
 * Reads a composition file; paths in it are relative to its folder.
 *
 * @throws {CjmError} `FILE_INVALID`, or `COMPOSITION_INVALID` with every key that is wrong.
 */
export async function readComposition(
  path: string,
  config: ResolvedConfig,
  { force = false }: { readonly force?: boolean | undefined } = {},
): Promise<CompositionSource> {
  const { value } = await readYaml(path);
  const content = await resolveIncludes(value, path);
  const written = parseCompositionFile(content);
  const folder = dirname(resolve(path));
  const schemas = await schemasOf(written, config);
  const { document, pathInputs } = placePaths(content, schemas, (given) => from(folder, given));
  const forced = force ? forceAll(document) : document;
  return { document: forced, composition: parseCompositionFile(forced), pathInputs };
}

/**
 * The values of `--set name=value`; paths among them are relative to the working directory.
 *
 * @throws {CjmError} `COMPOSITION_INVALID` naming what is no setting.
 */
export function parseSettings(
  { composition, pathInputs }: CompositionSource,
  settings: readonly string[],
): Readonly<Record<string, unknown>> {
  return Object.fromEntries(
    settings.map((setting) => {
      const [name = "", ...rest] = setting.split("=");
      const declaration = composition.inputs[name];
      if (rest.length === 0 || declaration === undefined) {
        const known = Object.keys(composition.inputs).join(", ") || "none";
        throw new CjmError(
          "COMPOSITION_INVALID",
          `--set ${setting}: expected <input>=<value>; declared inputs: ${known}`,
        );
      }
      const value = parseInputText(name, declaration, rest.join("="));
      const isPath = typeof value === "string" && pathInputs.has(name);
      return [name, isPath ? from(process.cwd(), value) : value];
    }),
  );
}

/** An empty text is no path. */
function from(folder: string, path: string): string {
  if (path === "") return path;
  const expanded = path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
  return resolve(folder, expanded);
}

async function schemasOf({ instances }: Composition, config: ResolvedConfig): Promise<PathSchemas> {
  const { capabilities } = await loadManifests(manifestSearchPaths(config));
  const codeOf = (id: unknown) => {
    if (typeof id !== "string") return undefined;
    const declared = Object.hasOwn(instances, id) ? instances[id] : undefined;
    return capabilities.get(declared?.capability ?? id)?.manifest.code;
  };
  return {
    config: (id) => codeOf(id)?.config_schema,
    kwargs: ({ capability, action, method }) => {
      const code = codeOf(capability);
      if (!isRecord(code?.actions)) return undefined;
      // A task's methods are the actions of the same names.
      const name = action ?? method;
      return actionOf(typeof name === "string" ? name : undefined, code.actions)?.input_schema;
    },
  };
}
