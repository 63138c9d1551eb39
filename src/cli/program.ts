import { Command, CommanderError, Option } from "commander";
import { hostPackage } from "../config/package-root.ts";
import { CjmError } from "../errors/index.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT, exitCodeOf } from "./exit-codes.ts";
import { color, harmless, printError } from "./terminal.ts";

/** What a command answers: its exit code. */
type Outcome = Promise<number>;

/** Runs the command line and gives the exit code; nothing here ends the process. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  let exitCode: number = EXIT.ok;
  const program = createProgram((code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...argv], { from: "user" });
    return exitCode;
  } catch (error) {
    return explain(error);
  }
}

function explain(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage;
  if (error instanceof AggregateError) {
    for (const cause of error.errors) explain(cause);
    return EXIT.failed;
  }
  if (error instanceof CjmError) {
    printError(`${color.red("error")}: ${harmless(error.message)}`);
    return exitCodeOf(error.code);
  }
  // A bug of ours: here a stack helps whoever reports it.
  printError(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return EXIT.failed;
}

/** The commands with their options; a command's code is loaded when it runs. */
export function createProgram(done: (exitCode: number) => void): Command {
  const program = new Command("cjm-ctl")
    .description("Install AI tools each in its own environment, compose and run them.")
    .version(hostPackage().version, "-V, --version")
    .option("--cjm-config <path>", "cjm.yaml to use instead of searching for it upwards")
    .option("--data-dir <path>", "where environments, journal and results live")
    .option("--conda-prefix <path>", "prefix of the conda runtime")
    .addOption(
      new Option("--conda-type <type>", "conda implementation").choices([
        "micromamba",
        "miniforge",
        "conda",
      ]),
    )
    .exitOverride()
    .showHelpAfterError("(cjm-ctl --help lists the commands)")
    .addHelpText("after", EXAMPLES);
  const globals = (): GlobalOptions => program.opts<GlobalOptions>();
  const finish = async (outcome: Outcome): Promise<void> => {
    done(await outcome);
  };
  addInstallCommands(program, globals, finish);
  addRunCommands(program, globals, finish);
  addLookCommands(program, globals, finish);
  addAskCommands(program, globals, finish);
  return program;
}

const EXAMPLES = `
Examples:
  $ cjm-ctl install-all
  $ cjm-ctl run composition.yaml --set rounds=3
  $ cjm-ctl logs --journal --follow`;

type Finish = (outcome: Outcome) => Promise<void>;

function addInstallCommands(program: Command, globals: () => GlobalOptions, finish: Finish): void {
  program
    .command("install-all")
    .description("Build every environment of capabilities.yaml and register its capability")
    .option("--capabilities <path>", "capabilities.yaml to use")
    .option("--substrate-source <spec>", "SDK installed into Python environments")
    .option("--force", "build environments anew")
    .option("--only <name...>", "only these capabilities")
    .option("--json", "print the results as one JSON document")
    .action(async (options: Record<string, never>) => {
      const { installAllCommand } = await import("./commands/install-all.ts");
      await finish(installAllCommand({ ...globals(), ...options }));
    });
  program
    .command("list")
    .description("List the capabilities there are, installed or shipped")
    .option("--capabilities <path>", "capabilities.yaml to compare with")
    .option("-e, --envs", "show environments")
    .option("--json", "print one JSON document")
    .action(async (options: Record<string, never>) => {
      const { listCommand } = await import("./commands/list.ts");
      await finish(listCommand({ ...globals(), ...options }));
    });
  program
    .command("validate")
    .description("Check a manifest, capabilities.yaml, cjm.yaml or composition file")
    .argument("<path>", "file to check")
    .addOption(
      new Option("-f, --format <format>", "what the file is, when its name does not say").choices([
        "manifest",
        "capabilities_yaml",
        "cjm_yaml",
        "composition",
      ]),
    )
    .option("--json", "print one JSON document")
    .action(async (path: string, options: Record<string, never>) => {
      const { validateCommand } = await import("./commands/validate.ts");
      await finish(validateCommand(path, { ...globals(), ...options }));
    });
}

function addRunCommands(program: Command, globals: () => GlobalOptions, finish: Finish): void {
  program
    .command("run")
    .description("Run a composition file and show its progress and result")
    .argument("<composition>", "YAML file that describes the nodes")
    .option("--set <key=value...>", "value of a declared input")
    .option("--monitor <capability>", "capability that measures GPUs", "gpu-monitor")
    .option("--json", "print the result as one JSON document")
    .action(async (path: string, options: Record<string, never>) => {
      const { runCommand } = await import("./commands/run.ts");
      await finish(runCommand(path, { ...globals(), ...options }));
    });
  program
    .command("resume")
    .description("Continue what an earlier host left unfinished")
    .argument("[id]", "composition or job; without it, everything there is to resume")
    .option("--monitor <capability>", "capability that measures GPUs", "gpu-monitor")
    .option("--json", "print the result as one JSON document")
    .action(async (id: string | undefined, options: Record<string, never>) => {
      const { resumeCommand } = await import("./commands/resume.ts");
      await finish(resumeCommand(id, { ...globals(), ...options }));
    });
  program
    .command("cancel")
    .description("Cancel a composition or job of a live host, or one that waits to be resumed")
    .argument("<id>", "composition or job")
    .option("--json", "print one JSON document")
    .action(async (id: string, options: Record<string, never>) => {
      const { cancelCommand } = await import("./commands/cancel.ts");
      await finish(cancelCommand(id, { ...globals(), ...options }));
    });
}

function addLookCommands(program: Command, globals: () => GlobalOptions, finish: Finish): void {
  program
    .command("logs")
    .description("Show what workers logged, or the journal of what the host did")
    .option("--job <id>", "only this job")
    .option("--run <id>", "only this run of a caller (implies --journal)")
    .option("--session <id>", "only this worker session")
    .option("--level <level>", "only records of this level")
    .option("--journal", "the journal instead of the workers' records")
    .option("--chunks", "raw output of the workers")
    .option("-n, --limit <n>", "the newest n entries; 0 shows all", "50")
    .option("-f, --follow", "wait for new entries")
    .option("--json", "print one JSON object a line")
    .action(async (options: { readonly limit: string }) => {
      const { logsCommand } = await import("./commands/logs.ts");
      await finish(logsCommand({ ...globals(), ...options }));
    });
  program
    .command("status")
    .description("Show lanes, jobs, instances and GPUs of the live host")
    .option("-w, --watch", "repeat every second")
    .option("--json", "print one JSON document")
    .action(async (options: Record<string, never>) => {
      const { statusCommand } = await import("./commands/status.ts");
      await finish(statusCommand({ ...globals(), ...options }));
    });
}

function addAskCommands(program: Command, globals: () => GlobalOptions, finish: Finish): void {
  program
    .command("explain")
    .description("Show where a job's or a composition's time went, and who was in its way")
    .argument("<id>", "composition or job")
    .option("--json", "print one JSON document")
    .action(async (id: string, options: Record<string, never>) => {
      const { explainCommand } = await import("./commands/explain.ts");
      await finish(explainCommand(id, { ...globals(), ...options }));
    });
  program
    .command("trace")
    .description("Show what a file, hash or node comes from, and what came of it")
    .argument("<what>", "path, sha256:<hex>, or <composition>/<node>")
    .option("--json", "print one JSON document")
    .action(async (what: string, options: Record<string, never>) => {
      const { traceCommand } = await import("./commands/trace.ts");
      await finish(traceCommand(what, { ...globals(), ...options }));
    });
  program
    .command("profiles")
    .description("List, export (--json) or clear what jobs were measured to need")
    .option("--capability <name>", "only of this capability")
    .option("--clear", "forget them; the next job of each is its measurement again")
    .option("--json", "print one JSON document")
    .action(async (options: { readonly clear?: boolean }) => {
      const commands = await import("./commands/profiles.ts");
      const command =
        options.clear === true ? commands.clearProfilesCommand : commands.profilesCommand;
      await finish(command({ ...globals(), ...options }));
    });
}
