import { execFile } from "node:child_process";
import { readdir } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { CjmError } from "../errors/index.ts";

/** A Python interpreter as it describes itself. */
export interface Python {
  readonly executable: string;
  /** Such as `3.12.1`. */
  readonly version: string;
}

/** What `cjm_worker` runs on. */
const OLDEST_PYTHON = "3.9";
const run = promisify(execFile);
const found = new Map<string, Promise<Python | undefined>>();

/**
 * Finds a Python: on PATH, then in pyenv, then by uv.
 *
 * @param version Such as `3.12` or `3.12.1`; absent: the `python3` of PATH.
 * @throws {CjmError} `SETUP_REQUIRED` saying what to install.
 */
export async function findPython(
  version: string | undefined,
  env: NodeJS.ProcessEnv,
): Promise<Python> {
  for (const candidate of await candidates(version, env)) {
    const python = await probe(candidate, env);
    if (python !== undefined && fits(python.version, version)) return python;
  }
  const wanted = version === undefined ? `Python ${OLDEST_PYTHON} or newer` : `Python ${version}`;
  const hint = version === "3.1" ? ' If you meant 3.10, quote it: "3.10".' : "";
  throw new CjmError(
    "SETUP_REQUIRED",
    `${wanted} was found neither on PATH, nor in pyenv, nor by uv; install it, for example with \`uv python install ${version ?? "3.12"}\`.${hint}`,
  );
}

function fits(actual: string, wanted: string | undefined): boolean {
  if (wanted !== undefined) return actual === wanted || actual.startsWith(`${wanted}.`);
  return actual.localeCompare(OLDEST_PYTHON, undefined, { numeric: true }) >= 0;
}

async function candidates(
  version: string | undefined,
  env: NodeJS.ProcessEnv,
): Promise<readonly string[][]> {
  if (version === undefined) return [["python3"], ["python"]];
  const minor = version.split(".").slice(0, 2).join(".");
  return [
    [`python${minor}`],
    ...(await pyenvPythons(version, env)).map((path) => [path]),
    ["python3"],
    ["uv", "run", "--no-project", "--python", version, "python"],
  ];
}

async function pyenvPythons(version: string, env: NodeJS.ProcessEnv): Promise<string[]> {
  const versions = join(env["PYENV_ROOT"] ?? join(homedir(), ".pyenv"), "versions");
  try {
    const names = await readdir(versions);
    return names
      .filter((name) => fits(name, version))
      .sort((a, b) => b.localeCompare(a, undefined, { numeric: true }))
      .map((name) => join(versions, name, "bin", "python3"));
  } catch {
    return [];
  }
}

/** Runs a candidate; what it says of itself sees through shims and wrappers. */
function probe(command: readonly string[], env: NodeJS.ProcessEnv): Promise<Python | undefined> {
  const key = JSON.stringify([command, env["PATH"]]);
  let pending = found.get(key);
  if (pending === undefined) {
    pending = askPython(command, env);
    found.set(key, pending);
  }
  return pending;
}

async function askPython(
  [file = "", ...args]: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<Python | undefined> {
  const script = "import sys; print(sys.executable); print('%d.%d.%d' % sys.version_info[:3])";
  try {
    const { stdout } = await run(file, [...args, "-I", "-S", "-c", script], {
      env,
      timeout: 30_000,
    });
    const [executable = "", version = ""] = stdout.trim().split("\n");
    return executable === "" ? undefined : { executable, version };
  } catch {
    return undefined;
  }
}
