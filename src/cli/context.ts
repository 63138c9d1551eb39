import { loadConfig, type ResolvedConfig } from "../config/index.ts";
import { compact } from "../util/compact.ts";

/** Options every command takes. */
export interface GlobalOptions {
  readonly cjmConfig?: string | undefined;
  readonly dataDir?: string | undefined;
  readonly condaPrefix?: string | undefined;
  readonly condaType?: string | undefined;
}

/** The configuration as flags, environment and cjm.yaml make it. */
export async function configOf(options: GlobalOptions): Promise<ResolvedConfig> {
  return await loadConfig({
    cwd: process.cwd(),
    configPath: options.cjmConfig,
    env: process.env,
    flags: compact({
      data_dir: options.dataDir,
      "runtime.prefix": options.condaPrefix,
      "runtime.conda_type": options.condaType,
    }),
  });
}
