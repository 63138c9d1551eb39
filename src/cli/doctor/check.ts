import { execFile } from "node:child_process";
import { promisify } from "node:util";
import type { DoctorOutput } from "../json-output.ts";

/** One thing that was looked at, what was found, and what to do about it. */
export type Check = DoctorOutput["checks"][number];

/** Looks at one thing; what it throws becomes a failed check. */
export interface Examination {
  readonly name: string;
  readonly look: () => Promise<Finding | readonly Finding[]> | Finding | readonly Finding[];
}
export type Finding = Omit<Check, "name"> & { readonly name?: string };

export const ok = (detail: string): Finding => ({ state: "ok", detail, fix: null });
/** Something works with less than it could. */
export const warning = (detail: string, fix: string): Finding => ({
  state: "warning",
  detail,
  fix,
});
/** Something that was asked for cannot work. */
export const failed = (detail: string, fix: string): Finding => ({ state: "failed", detail, fix });

export async function examine({ name, look }: Examination): Promise<readonly Check[]> {
  try {
    const found = await look();
    const findings = "state" in found ? [found] : found;
    return findings.map((finding) => ({ name, ...finding }));
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return [{ name, state: "failed", detail, fix: null }];
  }
}

const run = promisify(execFile);
const TIMEOUT_MS = 10_000;

/** Output of a program; `reason` where it could not be run or failed. */
export async function tryProgram(
  file: string,
  args: readonly string[],
): Promise<{ readonly output: string } | { readonly reason: string }> {
  try {
    const { stdout } = await run(file, [...args], { timeout: TIMEOUT_MS });
    return { output: stdout.trim() };
  } catch (error) {
    if (!(error instanceof Error)) return { reason: String(error) };
    if ("code" in error && error.code === "ENOENT") return { reason: `no "${file}" on PATH` };
    const stderr = "stderr" in error && typeof error.stderr === "string" ? error.stderr.trim() : "";
    return { reason: stderr.split("\n").at(-1) || error.message };
  }
}
