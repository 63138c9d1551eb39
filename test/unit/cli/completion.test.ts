import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { completionScript, SHELLS } from "../../../src/cli/completion-script.ts";
import { createProgram } from "../../../src/cli/program.ts";

const program = createProgram(() => undefined);
const PTY = fileURLToPath(new URL("../../support/pseudo_terminal.py", import.meta.url));

let folder = "";
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "cjm-completion-"));
  for (const shell of SHELLS) {
    await writeFile(join(folder, `cjm-ctl.${shell}`), completionScript(shell, program));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const isThere = async (shell: string): Promise<boolean> =>
  (await execa(shell, ["--version"], { reject: false })).exitCode === 0;
const hasFish = await isThere("fish");
const hasZsh = await isThere("zsh");

describe("in bash", () => {
  /** What bash offers for a line that ends where the cursor is. */
  async function offers(...words: readonly string[]): Promise<string[]> {
    const script =
      'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cjm_ctl; echo "${COMPREPLY[*]}"';
    const command = ["-c", script, join(folder, "cjm-ctl.bash"), "cjm-ctl", ...words];
    const { stdout } = await execa("bash", command);
    return stdout.split(" ").filter((word) => word !== "");
  }

  test("commands are offered, by their beginning", async () => {
    expect(await offers("re")).toEqual([
      "remove",
      "regenerate-manifest",
      "resume",
      "retention",
      "report",
    ]);
  });

  test("a command's own options are offered after it, wherever global ones stand", async () => {
    expect(await offers("--data-dir", "list", "logs", "--jo")).toEqual(["--job", "--journal"]);
  });

  test("choices are offered after their option, and only after its own", async () => {
    expect(await offers("validate", "-f", "cap")).toEqual(["capabilities_yaml"]);
    expect(await offers("--conda-type", "mini")).toEqual(["miniforge"]);
    expect(await offers("logs", "-f", "cap")).toEqual([]);
  });

  test("shells are offered to completion itself", async () => {
    expect(await offers("completion", "z")).toEqual(["zsh"]);
  });
});

describe.runIf(hasFish)("in fish", () => {
  test.for([
    ["cjm-ctl re", ["regenerate-manifest", "remove", "resume", "report", "retention"]],
    ["cjm-ctl logs --jo", ["--job", "--journal"]],
    ["cjm-ctl validate -f cap", ["capabilities_yaml"]],
    ["cjm-ctl completion z", ["zsh"]],
  ] as const)("%s", async ([line, expected]) => {
    const script = 'source $argv[1]; complete -C "$argv[2]"';
    const { stdout } = await execa("fish", ["-c", script, join(folder, "cjm-ctl.fish"), line]);
    const words = stdout.split("\n").map((row) => row.split("\t")[0]);
    expect(new Set(words)).toEqual(new Set(expected));
  });
});

/** zsh turns on bracketed paste when it waits for a line. */
const PROMPT = "\u001B[?2004h";

describe.runIf(hasZsh)("in zsh", () => {
  test.for([
    ["cjm-ctl sta", "tus"],
    ["cjm-ctl logs --journ", "al"],
    ["cjm-ctl validate --format cap", "abilities_yaml"],
    ["cjm-ctl completion z", "sh"],
  ] as const)("%s is completed by Tab", async ([line, rest]) => {
    const load = `autoload -U compinit && compinit -D && source ${join(folder, "cjm-ctl.zsh")}`;
    const keys = [
      [PROMPT, `${load}\n`],
      [PROMPT, `${line}\t`],
      [rest, "\u0003"],
      [PROMPT, "exit 0\n"],
    ];
    const command = ["24", "80", JSON.stringify(keys), "zsh", "-f", "-i"];
    const env = { TERM: "dumb", HOME: folder };
    const { stdout, exitCode } = await execa("python3", [PTY, ...command], { env, reject: false });
    expect(stdout).toContain(rest);
    expect(exitCode).toBe(0);
  });
});

test.for(SHELLS)("%s knows every command and every long option", (shell) => {
  const script = completionScript(shell, program);
  for (const command of program.commands) {
    expect(script).toContain(command.name());
    for (const { long, hidden } of command.options) {
      if (hidden) continue;
      expect(script).toContain(shell === "fish" ? `-l ${long?.slice(2)}` : (long ?? ""));
    }
  }
});
