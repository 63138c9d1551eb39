import { type Frame, JSON_OPTION, type Options } from "../frame.ts";

const HEADING = "Why and where from:";

/** Questions about what was run: its time, its origin, its measured need. */
export function addAskCommands({ command, globals, finish }: Frame): void {
  command("explain", {
    summary: "Show where a job's or a composition's time went, and who was in its way",
    example: "explain 3d37fcc3-47aa-4e28-aea6-f2bbb869f49a",
    heading: HEADING,
  })
    .argument("<id>", "composition or job")
    .option(...JSON_OPTION)
    .action(async (id: string, options: Options) => {
      const { explainCommand } = await import("../commands/explain.ts");
      await finish(explainCommand(id, { ...globals(), ...options }));
    });
  command("trace", {
    summary: "Show what a file, hash or node comes from, and what came of it",
    example: "trace adapters/merged/adapter_model.safetensors",
    heading: HEADING,
  })
    .argument("<what>", "path, sha256:<hex>, or <composition>/<node>")
    .option(...JSON_OPTION)
    .action(async (what: string, options: Options) => {
      const { traceCommand } = await import("../commands/trace.ts");
      await finish(traceCommand(what, { ...globals(), ...options }));
    });
  command("profiles", {
    summary: "List, export (--json) or clear what jobs were measured to need",
    example: "profiles --capability sandbox",
    heading: HEADING,
  })
    .option("--capability <name>", "only of this capability")
    .option("--clear", "forget them; the next job of each is its measurement again")
    .option(...JSON_OPTION)
    .action(async (options: { readonly clear?: boolean }) => {
      const commands = await import("../commands/profiles.ts");
      const command =
        options.clear === true ? commands.clearProfilesCommand : commands.profilesCommand;
      await finish(command({ ...globals(), ...options }));
    });
}
