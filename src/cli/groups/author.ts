import { Option } from "commander";
import { type Frame, JSON_OPTION } from "../frame.ts";

const HEADING = "Authors and secrets:";

/** What an author of a capability needs first. */
export function addAuthorCommands({ command, globals, finish }: Frame): void {
  command("new", {
    summary: "Write a working capability with a test, to start from",
    example: "new my-tool --lang python",
    heading: HEADING,
  })
    .argument("<name>", "name of the capability and of its folder")
    .addOption(
      new Option("-l, --lang <language>", "what it is written in")
        .choices(["ts", "python"])
        .default("ts"),
    )
    .option(...JSON_OPTION)
    .action(async (name: string, options: { readonly lang: "ts" | "python" }) => {
      const { newCommand } = await import("../commands/new.ts");
      await finish(newCommand(name, { ...globals(), ...options }));
    });
}
