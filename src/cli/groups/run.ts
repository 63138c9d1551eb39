import type { Frame, Options } from "../frame.ts";
import { JSON_OPTION } from "../frame.ts";

const HEADING = "Work:";
const MONITOR = ["--monitor <capability>", "capability that measures GPUs", "gpu-monitor"] as const;

/** Starts, continues and ends work. */
export function addRunCommands({ command, globals, finish }: Frame): void {
  command("run", {
    summary: "Run a composition file and show its progress and result",
    example: "run composition.yaml --set rounds=3",
    heading: HEADING,
  })
    .argument("<composition>", "YAML file that describes the nodes")
    .option("--set <key=value...>", "value of a declared input")
    .option("--force", "run every node anew, whatever a cache holds")
    .option(...MONITOR)
    .option(...JSON_OPTION)
    .action(async (path: string, options: Options) => {
      const { runCommand } = await import("../commands/run.ts");
      await finish(runCommand(path, { ...globals(), ...options }));
    });
  command("resume", {
    summary: "Continue what an earlier host left unfinished",
    example: "resume --json",
    heading: HEADING,
  })
    .argument("[id]", "composition or job; without it, everything there is to resume")
    .option(...MONITOR)
    .option(...JSON_OPTION)
    .action(async (id: string | undefined, options: Options) => {
      const { resumeCommand } = await import("../commands/resume.ts");
      await finish(resumeCommand(id, { ...globals(), ...options }));
    });
  command("cancel", {
    summary: "Cancel a composition or job of a live host, or one that waits to be resumed",
    example: "cancel 0198c0de",
    heading: HEADING,
  })
    .argument("<id>", "composition or job")
    .option(...JSON_OPTION)
    .action(async (id: string, options: Options) => {
      const { cancelCommand } = await import("../commands/cancel.ts");
      await finish(cancelCommand(id, { ...globals(), ...options }));
    });
}
