import { Argument } from "commander";
import { SHELLS, type Shell } from "../completion-script.ts";
import type { Frame } from "../frame.ts";

/** What makes a shell know the command line. */
export function addShellCommands({ command, finish, program }: Frame): void {
  command("completion", {
    summary: "Print what makes a shell complete commands and options",
    example: "completion bash > ~/.local/share/bash-completion/completions/cjm-ctl",
    heading: "Shell:",
  })
    .addArgument(new Argument("<shell>", "bash, zsh or fish").choices(SHELLS))
    .action(async (shell: Shell) => {
      const { completionCommand } = await import("../commands/completion.ts");
      await finish(completionCommand(shell, program));
    });
}
