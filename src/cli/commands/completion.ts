import type { Command } from "commander";
import { CjmError } from "../../errors/index.ts";
import { completionScript, SHELLS, type Shell } from "../completion-script.ts";
import { EXIT } from "../exit-codes.ts";
import { print } from "../terminal.ts";

export function completionCommand(shell: string, program: Command): Promise<number> {
  if (!isShell(shell)) {
    throw new CjmError("CAPABILITY_INPUT", `"${shell}": expected one of ${SHELLS.join(", ")}`);
  }
  print(completionScript(shell, program));
  return Promise.resolve(EXIT.ok);
}

function isShell(text: string): text is Shell {
  return SHELLS.some((shell) => shell === text);
}
