import { Argument } from "commander";
import { type Frame, JSON_OPTION } from "../frame.ts";

const VIEWS = ["list", "show", "lineage", "verify"] as const;

interface Parsed {
  readonly registry?: string;
  readonly task?: string;
  readonly archived?: boolean;
}

/** What is in a registry of LoRA adapters. */
export function addAdapterCommands({ command, globals, finish }: Frame): void {
  command("adapters", {
    summary: "List, show, trace back or verify the LoRA adapters of a registry",
    example: "adapters lineage reverse-words-4f0c9a1b2d3e",
    heading: "Look:",
  })
    .addArgument(new Argument("<view>", "what to look at").choices(VIEWS))
    .argument("[id]", "an adapter; verify takes all without one")
    .option("--registry <folder>", "folder of the registry (default: that of this data directory)")
    .option("--task <type>", "list: only adapters for this task")
    .option("--archived", "list: archived ones too")
    .option(...JSON_OPTION)
    .action(async (view: (typeof VIEWS)[number], id: string | undefined, options: Parsed) => {
      const { adaptersCommand } = await import("../commands/adapters.ts");
      await finish(adaptersCommand(view, id, { ...globals(), ...options }));
    });
}
