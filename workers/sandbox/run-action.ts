import { CjmError, type Call } from "cjm-substrate/worker";
import type { StagedFile } from "./guest-files.ts";
import { PROGRAMS, type Language } from "./languages.ts";
import { runProgram, type RunContext } from "./run-program.ts";
import { openSite } from "./run-site.ts";
import type { RunInput, RunOutput } from "./schemas.ts";
import { readPrintedTests } from "./text-helpers.ts";
import type { Workbench } from "./workbench.ts";

/** The action `run`. */
export async function runAction(
  workbench: Workbench,
  input: RunInput,
  call: Call,
): Promise<RunOutput> {
  const language = languageOf(input);
  const words = wordsOf(language, input);
  using site = await openSite(workbench, { ...input, language }, call.signal);
  const program = {
    policy: { ...site.policy, argv: [...site.interpreter, ...words] },
    files: filesOf(language, input),
    stdin: input.stdin ?? jsonText(input.input),
    collect: input.collect,
  };
  const result = await runProgram(site.engine, program, contextOf(call));
  accountFor(call, result);
  const printed = language === "python" ? readPrintedTests(input.code ?? "", result) : undefined;
  return printed === undefined ? result : { ...result, printed_tests: printed };
}

export function languageOf({ language }: Pick<RunInput, "language">): Language {
  return language === "javascript" ? "node" : language;
}

/** What a run needs from a call; the last line printed is its progress. */
export function contextOf(call: Call): RunContext {
  return {
    signal: call.signal,
    outputFolder: () => call.outputFolder,
    onOutput: (stream, bytes) => {
      const line = bytes.toString("utf8").trimEnd().split("\n").at(-1) ?? "";
      call.progress(-1, `${stream}: ${line.slice(0, 200)}`);
    },
  };
}

export function accountFor(call: Call, { status, cpu_ms: cpuMs, isolation }: RunOutput): void {
  call.usage({ jails: 1, cpu_ms: cpuMs });
  call.account("sandbox_run", { status, backend: isolation.backend });
}

function wordsOf(language: Language, { code, argv = [] }: RunInput): string[] {
  if (language === "command") {
    if (code === undefined && argv.length > 0) return argv;
    throw new CjmError("CAPABILITY_INPUT", 'language "command" takes argv and no code', {
      fieldsInvalid: ["argv", "code"],
    });
  }
  if (code !== undefined) return [...PROGRAMS[language].args, ...argv];
  if (argv.length > 0) return argv;
  throw new CjmError("CAPABILITY_INPUT", "Give code, or argv for the interpreter", {
    fieldsInvalid: ["code", "argv"],
  });
}

function filesOf(language: Language, { code, files, input }: RunInput): StagedFile[] {
  const staged: StagedFile[] = Object.entries(files).map(([name, content]) => ({ name, content }));
  const json = jsonText(input);
  if (json !== undefined) staged.push({ name: "input.json", content: json });
  if (code !== undefined && language !== "command") {
    staged.push({ name: PROGRAMS[language].file, content: code });
  }
  return staged;
}

function jsonText(value: unknown): string | undefined {
  return value === undefined ? undefined : JSON.stringify(value);
}
