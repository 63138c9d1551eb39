import { execFile } from "node:child_process";
import { accessSync, constants, realpathSync } from "node:fs";
import { delimiter, dirname, isAbsolute, join } from "node:path";
import { promisify } from "node:util";
import { CjmError } from "cjm-substrate/worker";
import type { Mount } from "./policy.ts";
import { guestPath, isSystemPath, programMount } from "./sandbox-root.ts";

export const LANGUAGES = ["python", "node", "bash", "command"] as const;
export type Language = (typeof LANGUAGES)[number];

/** An interpreter on this machine and what a jail must show for it to start. */
export interface Interpreter {
  readonly path: string;
  /** The same program as a guest sees it. */
  readonly guestPath: string;
  readonly version: string;
  readonly mounts: readonly Mount[];
}

/** Where to find interpreters; an absolute path or a name on PATH. */
export interface InterpreterPaths {
  readonly python: string;
  readonly node: string;
  readonly bash: string;
}

/** The file the code is written to and the words after the interpreter. */
export const PROGRAMS: Readonly<
  Record<Exclude<Language, "command">, { file: string; args: readonly string[] }>
> = {
  python: { file: "main.py", args: ["-B", "main.py"] },
  node: { file: "main.js", args: ["main.js"] },
  bash: { file: "main.sh", args: ["main.sh"] },
};

const run = promisify(execFile);

const PYTHON_FACTS =
  "import sys;print(sys.executable, sys.prefix, sys.base_prefix, sys.version.split()[0], sep='\\n')";

/**
 * Finds an interpreter and asks it where its own files are: a version manager's shim and a virtual
 * environment both live elsewhere than the name on PATH says.
 *
 * @throws {CjmError} `SETUP_REQUIRED` naming what was looked for.
 */
export async function findInterpreter(
  language: Exclude<Language, "command">,
  name: string,
): Promise<Interpreter> {
  const path = findProgram(name);
  if (path === undefined) {
    throw new CjmError("SETUP_REQUIRED", `No ${language} interpreter: "${name}" is not on PATH`);
  }
  if (language === "python") return pythonInterpreter(path);
  const real = realpathSync(path);
  const { stdout } = await run(real, ["--version"], { env: {} });
  const version = /\d+(?:\.\d+)+/u.exec(stdout)?.[0] ?? "";
  return { path: real, guestPath: guestPath(real), version, mounts: programMount(real) };
}

async function pythonInterpreter(path: string): Promise<Interpreter> {
  const { stdout } = await run(path, ["-c", PYTHON_FACTS]);
  const [executable = path, prefix = "", basePrefix = "", version = ""] = stdout.split("\n");
  const folders = [...new Set([prefix, basePrefix])].filter((folder) => !isSystemPath(folder));
  const mounts = folders.map((source): Mount => {
    return { kind: "ro", source, target: guestPath(source) };
  });
  return { path: executable, guestPath: guestPath(executable), version, mounts };
}

/** The executable file a name stands for, as a shell would find it. */
export function findProgram(name: string, path = process.env["PATH"] ?? ""): string | undefined {
  const candidates = isAbsolute(name)
    ? [name]
    : path.split(delimiter).map((folder) => join(folder, name));
  return candidates.find((candidate) => isExecutable(candidate));
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return dirname(path) !== "";
  } catch {
    return false;
  }
}
