import { execFile } from "node:child_process";
import { tmpdir } from "node:os";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Absent, type Numbers } from "./report.ts";

const run = promisify(execFile);

/**
 * Runs the published Python package once. `CJM_ORIGINAL_PYTHON` names the interpreter (3.12 or newer)
 * of an environment that holds it: `pip install cjm-substrate`.
 *
 * @throws {Absent} where it cannot be run.
 */
export async function runOriginal(jobs: number): Promise<Numbers> {
  const python = process.env["CJM_ORIGINAL_PYTHON"] ?? "python3";
  const script = fileURLToPath(new URL("original/bench.py", import.meta.url));
  try {
    // It writes a file beside wherever it runs.
    const { stdout } = await run(python, [script, "--jobs", String(jobs)], { cwd: tmpdir() });
    const line = stdout.trim().split("\n").at(-1) ?? "";
    const parsed = JSON.parse(line) as Readonly<Record<string, unknown>>;
    return Object.fromEntries(
      Object.entries(parsed).flatMap(([key, value]) =>
        typeof value === "number" ? [[key, value] as const] : [],
      ),
    );
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split("\n").at(-2) ?? "") : "";
    throw new Absent(`${python} bench/original/bench.py`, reason);
  }
}
