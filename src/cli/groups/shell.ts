import type { Frame } from "../frame.ts";

/** What makes a shell know the command line. */
export function addShellCommands({ command, finish, program }: Frame): void {
  command("completion", {
    summary: "Print what makes a shell complete commands and options",
    example: "completion bash > ~/.local/share/bash-completion/completions/cjm-ctl",
    heading: "Shell:",
  })
    .argument("<shell>", "bash, zsh or fish")
    .action(async (shell: string) => {
      const { completionCommand } = await import("../commands/completion.ts");
      await finish(completionCommand(shell, program));
    });
}
