import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { hostPackage } from "../../config/index.ts";
import { CjmError } from "../../errors/index.ts";
import type { EnvironmentKind, EnvironmentSpec, WorkerStart } from "../kind.ts";
import { findPython } from "../python.ts";
import { hashFiles, listSource } from "../source-files.ts";
import { isPythonStart } from "../spec.ts";

const ENTRIES = ["main.js", "main.mjs", "main.ts", "main.py"];

/** A worker that runs where its source is; nothing is installed. */
export const pathKind: EnvironmentKind = {
  async inputs(spec, { env }) {
    const runtime = isPythonStart(entryOf(spec))
      ? await findPython(spec.entry.python_version, env)
      : [process.version, process.execPath];
    return { runtime, source: await hashFiles(await listSource(spec.sourceDir ?? "")) };
  },

  build: () => Promise.resolve(),

  async start(spec): Promise<WorkerStart> {
    const entry = entryOf(spec);
    const root = spec.sourceDir ?? "";
    if (!isPythonStart(entry)) {
      const command = [process.execPath, join(root, entry)];
      return { command, introspect: command };
    }
    const { executable } = await findPython(spec.entry.python_version, process.env);
    const sdk = join(hostPackage().root, "python", "src");
    const env = { PYTHONPATH: [root, sdk].join(delimiter) };
    if (entry.endsWith(".py")) {
      const command = [executable, join(root, entry)];
      return { command, introspect: command, pythonPath: executable, env };
    }
    return {
      command: [executable, "-m", "cjm_worker", entry],
      introspect: [executable, "-m", "cjm_worker.introspect", entry],
      pythonPath: executable,
      env,
    };
  },
};

function entryOf(spec: EnvironmentSpec): string {
  const named = spec.entry.entry;
  const root = spec.sourceDir ?? "";
  if (named !== undefined) {
    if (/^[\w.]+:\w+$/u.test(named) || existsSync(join(root, named))) return named;
    throw new CjmError("INSTALL_FAILED", `${join(root, named)}: no such file`, {
      category: "user_input",
    });
  }
  const found = ENTRIES.find((name) => existsSync(join(root, name)));
  if (found !== undefined) return found;
  throw new CjmError(
    "INSTALL_FAILED",
    `${root} holds none of ${ENTRIES.join(", ")}; name the worker's file with \`entry\``,
    { category: "user_input" },
  );
}
