import type { Command } from "commander";
import { completionScript, type Shell } from "../completion-script.ts";
import { EXIT } from "../exit-codes.ts";
import { print } from "../terminal.ts";

export function completionCommand(shell: Shell, program: Command): Promise<number> {
  print(completionScript(shell, program));
  return Promise.resolve(EXIT.ok);
}
