import { mkdir, readFile } from "node:fs/promises";
import { dirname } from "node:path";
import { currentPlatform, type ResolvedConfig } from "../config/index.ts";
import { CjmError } from "../errors/index.ts";
import { sha256 } from "../util/canonical-json.ts";
import { replaceFile } from "../util/replace-file.ts";
import { download } from "./download.ts";
import { condaProgram } from "./kinds/conda.ts";

const MICROMAMBA_VERSION = "2.9.0-0";
const RELEASES = "https://github.com/mamba-org/micromamba-releases/releases/download";
const MAX_BYTES = 128 * 1024 * 1024;

/** The binaries of {@link MICROMAMBA_VERSION}; the two must move together. */
const MICROMAMBA: Readonly<Record<string, { readonly asset: string; readonly sha256: string }>> = {
  "linux-x64": {
    asset: "micromamba-linux-64",
    sha256: "sha256:366cd9cd8be14df1ab8ed50352a82111082a36686b2d389fdb79a92c3fafb3e3",
  },
  "linux-arm64": {
    asset: "micromamba-linux-aarch64",
    sha256: "sha256:9f93b974adcb4d166996af969b6cd371287d1a3e52733704727884d9b74cb7a7",
  },
  "darwin-x64": {
    asset: "micromamba-osx-64",
    sha256: "sha256:1e71054bb3ac9a076e21f7ec48acfef536f9b3f1408f371a942784bf5ef83d8a",
  },
  "darwin-arm64": {
    asset: "micromamba-osx-arm64",
    sha256: "sha256:ec2a072f028e1a7cf20f3e2e74d5a8127cf5a5f27636375b5359811565f4e5be",
  },
};

export interface SetupRuntimeOptions {
  readonly config: ResolvedConfig;
  /** Installs again although the right binary is there. */
  readonly force?: boolean | undefined;
  /** Folder of the release on another server. */
  readonly mirror?: string | undefined;
  /** A binary that is already on this machine; nothing is downloaded. */
  readonly file?: string | undefined;
  /** Checksum (hex) of another version than the pinned one. */
  readonly sha256?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface SetupRuntimeResult {
  readonly path: string;
  readonly outcome: "installed" | "unchanged";
  readonly sha256: string;
}

/**
 * Puts micromamba where the project's configuration expects it (runtime mode `local`).
 *
 * @throws {CjmError} `CONFIG_INVALID` where the project uses another runtime, `INSTALL_FAILED` when
 * the download fails or its checksum is not the pinned one; then nothing is written.
 */
export async function setupRuntime(options: SetupRuntimeOptions): Promise<SetupRuntimeResult> {
  const path = runtimeBinary(options.config);
  const platform = currentPlatform();
  const pinned = MICROMAMBA[platform];
  const expected =
    options.sha256 === undefined ? pinned?.sha256 : `sha256:${options.sha256.toLowerCase()}`;
  if (pinned === undefined || expected === undefined) {
    throw new CjmError("SETUP_REQUIRED", `micromamba has no binary for ${platform}`);
  }
  const present = await readFile(path).catch(() => undefined);
  if (options.force !== true && present !== undefined && sha256(present) === expected) {
    return { path, outcome: "unchanged", sha256: expected };
  }
  const source =
    options.file ?? `${options.mirror ?? `${RELEASES}/${MICROMAMBA_VERSION}`}/${pinned.asset}`;
  const binary =
    options.file === undefined
      ? await download(source, MAX_BYTES, options.signal)
      : await readFile(options.file);
  const actual = sha256(binary);
  if (actual !== expected) {
    throw new CjmError(
      "INSTALL_FAILED",
      `${source}: checksum is ${actual}; expected ${expected} (micromamba ${MICROMAMBA_VERSION}). Nothing was installed`,
    );
  }
  await writeExecutable(path, binary);
  return { path, outcome: "installed", sha256: expected };
}

function runtimeBinary(config: ResolvedConfig): string {
  const { mode, condaType } = config.runtime;
  if (mode === "local" && condaType === "micromamba") return condaProgram(config);
  throw new CjmError(
    "CONFIG_INVALID",
    `setup-runtime installs micromamba for the project; here runtime.mode is ${mode} and runtime.conda_type is ${condaType}. Set \`local\` and \`micromamba\` in cjm.yaml`,
    { fieldsInvalid: ["runtime.mode", "runtime.conda_type"] },
  );
}

async function writeExecutable(path: string, content: Buffer): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await replaceFile(path, content, 0o755);
}
