import { configOf, type GlobalOptions } from "../context.ts";
import { type Check, examine } from "../doctor/check.ts";
import { GPU_EXAMINATION } from "../doctor/gpu.ts";
import { machineExaminations } from "../doctor/machine.ts";
import { projectExaminations } from "../doctor/project.ts";
import { EXIT } from "../exit-codes.ts";
import type { DoctorOutput } from "../json-output.ts";
import { color, harmless, print, printJson } from "../terminal.ts";

export interface DoctorOptions extends GlobalOptions {
  readonly json?: boolean;
}

const MARKS: Readonly<Record<Check["state"], string>> = {
  ok: color.green("ok"),
  warning: color.yellow("warning"),
  failed: color.red("failed"),
};

export async function doctorCommand(options: DoctorOptions): Promise<number> {
  const config = await configOf(options);
  const examinations = [
    ...machineExaminations(config),
    GPU_EXAMINATION,
    ...projectExaminations(config),
  ];
  const checks = (await Promise.all(examinations.map(examine))).flat();
  const healthy = checks.every(({ state }) => state !== "failed");
  const output: DoctorOutput = { healthy, checks };
  if (options.json === true) printJson(output);
  else for (const check of checks) show(check);
  return healthy ? EXIT.ok : EXIT.environment;
}

/** Not a table: what to do must never be cut. */
function show({ name, state, detail, fix }: Check): void {
  print(`${MARKS[state]}  ${color.bold(name)}: ${harmless(detail)}`);
  if (fix !== null) print(`    ${color.cyan("do")}: ${harmless(fix)}`);
}
