import type { Command } from "commander";
import { describe, expect, test } from "vitest";
import { createProgram } from "../../../src/cli/program.ts";

/** A command of the original with what its call may hold: arguments, flags, defaults. */
interface Original {
  readonly arguments: readonly string[];
  readonly flags: readonly string[];
  readonly defaults?: Readonly<Record<string, string>>;
}

const ORIGINAL: Readonly<Record<string, Original>> = {
  "setup-runtime": { arguments: [], flags: ["--force", "-f"] },
  "regenerate-manifest": { arguments: ["capability"], flags: ["--capabilities <", "--package <"] },
  "generate-adapter-manifest": { arguments: ["env-name", "target"], flags: [] },
  "install-all": {
    arguments: [],
    flags: ["--capabilities <", "--substrate-source <", "--force", "--no-force"],
  },
  "setup-host": { arguments: [], flags: ["--capabilities <", "--yes", "-y"] },
  list: { arguments: [], flags: ["--capabilities <", "--envs", "-e"] },
  logs: {
    arguments: [],
    flags: [
      "--job <",
      "--run <",
      "--session <",
      "--level <",
      "--journal",
      "--chunks",
      "--limit <",
      "-n",
      "--follow",
      "-f",
    ],
    defaults: { "--limit": "50" },
  },
  retention: { arguments: [], flags: ["--max-age-days <", "--max-total-mb <"] },
  remove: {
    arguments: ["capability"],
    flags: ["--capabilities <", "--keep-env", "--yes", "-y"],
  },
  validate: { arguments: ["path"], flags: ["--format <", "-f"] },
};
const GLOBAL = ["--cjm-config <", "--data-dir <", "--conda-prefix <", "--conda-type <", "--help"];

/** Commands that another branch of the program's tree adds; each has its help tested there. */
const PRINTS_NO_DATA = new Set(["completion", "types", "help", "set-secret", "new"]);

const program = createProgram(() => undefined);
program.configureOutput({ writeOut: () => undefined });
const commands = new Map(program.commands.map((command) => [command.name(), command]));

function helpOf(command: Command): string {
  let help = "";
  command.configureOutput({ writeOut: (text) => (help += text), getOutHelpWidth: () => 500 });
  command.outputHelp();
  return help;
}

describe("the commands of the original", () => {
  test.for(Object.entries(ORIGINAL))("%s takes what it took", ([name, original]) => {
    const command = commands.get(name);
    if (command === undefined) throw new TypeError(`no command ${name}`);
    const help = helpOf(command);
    expect(command.registeredArguments.map((argument) => argument.name())).toEqual(
      original.arguments,
    );
    const lines = help.split("\n").filter((line) => /^ {2}-/u.test(line));
    for (const flag of original.flags) {
      expect(
        lines.some((line) => new RegExp(`(?:^|[ ,])${flag}`, "u").test(line)),
        flag,
      ).toBe(true);
    }
    for (const [flag, value] of Object.entries(original.defaults ?? {})) {
      const line = lines.find((one) => one.includes(flag));
      expect(line).toContain(`(default: "${value}")`);
    }
  });

  test("the program takes the original's options before every command", () => {
    const help = helpOf(createProgram(() => undefined));
    for (const flag of GLOBAL) expect(help).toContain(flag);
  });

  test("validate takes the original's formats", () => {
    const help = helpOf(
      program.commands.find((command) => command.name() === "validate") ?? program,
    );
    for (const format of ["manifest", "capabilities_yaml", "source"])
      expect(help).toContain(format);
  });
});

describe("every command", () => {
  test.for([...commands.values()].map((command) => [command.name(), command] as const))(
    "%s shows an example and says --json where it prints data",
    ([name, command]) => {
      const help = helpOf(command);
      if (name !== "help") expect(help).toMatch(/\nExample:\n {2}\$ cjm-ctl \S/u);
      if (!PRINTS_NO_DATA.has(name)) expect(help).toContain("--json");
      expect(command.description()).not.toBe("");
    },
  );
});
