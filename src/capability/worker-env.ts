import { CjmError } from "../errors/index.ts";
import type { EnvVarSpec } from "../protocol/index.ts";

/** Names that may stand as `${…}` in the default of a worker-environment variable. */
export const WORKER_ENV_PLACEHOLDERS = [
  "CJM_MODELS_DIR",
  "CJM_CAPABILITY_DATA_DIR",
  "CAPABILITY_DATA_DIR",
  "CAPABILITY_NAME",
] as const;
export type WorkerEnvPlaceholders = Readonly<
  Record<(typeof WORKER_ENV_PLACEHOLDERS)[number], string | undefined>
>;

const PLACEHOLDER = /\$\{(?<name>[^}]*)\}/gu;

export interface WorkerEnvSources {
  readonly capability: string;
  readonly specs: readonly EnvVarSpec[];
  readonly secrets: Readonly<Record<string, string>>;
  /** `install.env_vars` of the manifest; wins over a default. */
  readonly installed: Readonly<Record<string, string>>;
  readonly placeholders: WorkerEnvPlaceholders;
}

export interface ResolvedWorkerEnv {
  readonly values: Readonly<Record<string, string>>;
  /** Required variables nobody gave a value. */
  readonly missing: readonly string[];
}

/**
 * Resolves the variables a capability declares: secrets from the store, visible ones from the
 * manifest or their default.
 *
 * @throws {CjmError} `CONFIG_INVALID` for a placeholder that is unknown or has no value.
 */
export function resolveWorkerEnv(sources: WorkerEnvSources): ResolvedWorkerEnv {
  const values: Record<string, string> = {};
  const missing: string[] = [];
  for (const spec of sources.specs) {
    const value = valueOf(spec, sources);
    if (value !== undefined) values[spec.name] = value;
    else if (spec.required) missing.push(spec.name);
  }
  return { values, missing };
}

function valueOf(spec: EnvVarSpec, sources: WorkerEnvSources): string | undefined {
  if (spec.secret) return sources.secrets[spec.name];
  const installed = sources.installed[spec.name];
  if (installed !== undefined) return installed;
  return spec.default == null ? undefined : expandTemplate(spec.default, spec.name, sources);
}

/** Single pass: a value that is filled in is taken as it is, never scanned again. */
function expandTemplate(
  template: string,
  variable: string,
  { capability, placeholders }: Pick<WorkerEnvSources, "capability" | "placeholders">,
): string {
  return template.replaceAll(PLACEHOLDER, (_match, name: string) => {
    const known = WORKER_ENV_PLACEHOLDERS.find((placeholder) => placeholder === name);
    const value = known === undefined ? undefined : placeholders[known];
    if (value !== undefined) return value;
    const why =
      known === undefined
        ? `unknown; known are ${WORKER_ENV_PLACEHOLDERS.join(", ")}`
        : "not configured on this host";
    throw new CjmError(
      "CONFIG_INVALID",
      `Variable ${variable} of "${capability}": placeholder \${${name}} is ${why}`,
      { fieldsInvalid: [variable] },
    );
  });
}
