import { Command, CommanderError, Option } from "commander";
import { hostPackage } from "../config/package-root.ts";
import { CjmError } from "../errors/index.ts";
import type { GlobalOptions } from "./context.ts";
import { EXIT, exitCodeOf } from "./exit-codes.ts";
import type { Frame } from "./frame.ts";
import { GROUPS } from "./groups/index.ts";
import { color, harmless, printError } from "./terminal.ts";

/** Runs the command line and gives the exit code; ends the process only where nobody reads it. */
export async function runProgram(argv: readonly string[]): Promise<number> {
  endQuietlyWithoutReader();
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

/** `cjm-ctl logs | head` is no failure to talk about; what still ran ends with the process. */
function endQuietlyWithoutReader(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") process.exit(EXIT.noReader);
      throw error;
    });
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
  if (isOfTheMachine(error)) {
    printError(`${color.red("error")}: ${harmless(error.message)}`);
    return EXIT.environment;
  }
  // A bug of ours: here a stack helps whoever reports it.
  printError(error instanceof Error ? (error.stack ?? error.message) : String(error));
  return EXIT.failed;
}

const MACHINE = new Set("EACCES EDQUOT EIO EMFILE ENFILE ENOMEM ENOSPC EPERM EROFS".split(" "));

/** What the system refuses us for its own reasons: no room, no right, a disk that is read-only. */
function isOfTheMachine(error: unknown): error is Error {
  return error instanceof Error && "code" in error && MACHINE.has(String(error.code));
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
    .addHelpText("after", EXAMPLES)
    .hook("preAction", (_program, command) => parseWithoutCompiling(command.name()));
  const frame: Frame = {
    program,
    command: (name, { summary, example, heading }) =>
      program
        .command(name)
        .description(summary)
        .helpGroup(heading)
        .showHelpAfterError(`(cjm-ctl ${name} --help shows the options)`)
        .addHelpText("after", `\nExample:\n  $ cjm-ctl ${example}`),
    globals: () => program.opts<GlobalOptions>(),
    finish: async (outcome) => {
      done(await outcome);
    },
  };
  for (const add of GROUPS) add(frame);
  program.addHelpCommand(
    new Command("help")
      .argument("[command]")
      .description("Show the help of a command")
      .helpGroup("Shell:"),
  );
  return program;
}

/** Commands that stay up and parse much, and those that parse nothing. */
const COMPILING = new Set(["run", "resume", "completion"]);

/** zod compiles each schema for its first use; a command that uses it once pays more than it wins. */
async function parseWithoutCompiling(command: string): Promise<void> {
  if (COMPILING.has(command)) return;
  const { config } = await import("zod/v4/core");
  config({ jitless: true });
}

const EXAMPLES = `
Examples:
  $ cjm-ctl install-all
  $ cjm-ctl run composition.yaml --set rounds=3
  $ cjm-ctl logs --journal --follow`;
