import { loadManifests, manifestSearchPaths } from "../../config/index.ts";
import { SecretStore } from "../../store/index.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, print, printJson, table } from "../terminal.ts";

export interface ListSecretsOptions extends GlobalOptions {
  readonly json?: boolean;
}

interface Line {
  readonly capability: string;
  readonly key: string;
  readonly state: "set" | "missing" | "not set";
  /** Whether a manifest declares it; one that nobody declares reaches no worker. */
  readonly declared: boolean;
}

/** Names of the secrets that are kept and of those that capabilities declare; never a value. */
export async function listSecretsCommand(
  capability: string | undefined,
  options: ListSecretsOptions,
): Promise<number> {
  const config = await configOf(options);
  const kept = await new SecretStore(config.dataDir).list();
  const { capabilities } = await loadManifests(manifestSearchPaths(config));
  const lines: Line[] = [];
  const names = new Set([...Object.keys(kept), ...capabilities.keys()]);
  for (const name of [...names].sort()) {
    if (capability !== undefined && name !== capability) continue;
    const specs = capabilities.get(name)?.manifest.code.worker_env ?? [];
    lines.push(
      ...linesOf(
        name,
        kept[name] ?? [],
        specs.filter(({ secret }) => secret),
      ),
    );
  }
  if (options.json === true) printJson({ secrets: lines });
  else if (lines.length === 0) print("No secret is kept and none is declared.");
  else print(table([["CAPABILITY", "SECRET", "STATE"], ...lines.map(cells)]));
  return EXIT.ok;
}

function linesOf(
  capability: string,
  kept: readonly string[],
  specs: readonly { readonly name: string; readonly required: boolean }[],
): Line[] {
  const declared = specs.map(({ name, required }): Line => {
    const state = kept.includes(name) ? "set" : required ? "missing" : "not set";
    return { capability, key: name, state, declared: true };
  });
  const rest = kept.filter((key) => !specs.some(({ name }) => name === key));
  return [
    ...declared,
    ...rest.map((key): Line => ({ capability, key, state: "set", declared: false })),
  ];
}

function cells({ capability, key, state, declared }: Line): string[] {
  const note = declared ? "" : " (no capability declares it)";
  const paint = { set: color.green, missing: color.red, "not set": color.yellow }[state];
  return [capability, key, `${paint(state)}${note}`];
}
