import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { execa } from "execa";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { completionScript, SHELLS } from "../../../src/cli/completion-script.ts";
import { createProgram } from "../../../src/cli/program.ts";

const program = createProgram(() => undefined);

describe("in bash", () => {
  let folder = "";
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "cjm-completion-"));
    await writeFile(join(folder, "cjm-ctl.bash"), completionScript("bash", program));
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** What bash offers for a line that ends where the cursor is. */
  async function offers(...words: readonly string[]): Promise<string[]> {
    const script =
      'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cjm_ctl; echo "${COMPREPLY[*]}"';
    const command = ["-c", script, join(folder, "cjm-ctl.bash"), "cjm-ctl", ...words];
    const { stdout } = await execa("bash", command);
    return stdout.split(" ").filter((word) => word !== "");
  }

  test("commands are offered, by their beginning", async () => {
    expect(await offers("re")).toEqual(["remove", "regenerate-manifest", "resume", "retention"]);
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
