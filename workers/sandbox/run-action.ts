import { CjmError, type Call } from "cjm-substrate/worker";
import type { StagedFile } from "./guest-files.ts";
import { PROGRAMS, type Language } from "./languages.ts";
import { WORK_FOLDER, type Mount } from "./policy.ts";
import { identityHere } from "./probe.ts";
import { runProgram, type Program, type RunContext } from "./run-program.ts";
import type { RunInput, RunOutput } from "./schemas.ts";
import type { Workbench } from "./workbench.ts";

const GUEST_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

/** The action `run`. */
export async function runAction(
  workbench: Workbench,
  input: RunInput,
  call: Call,
): Promise<RunOutput> {
  const engine = workbench.engine(input.isolation);
  const program = await programOf(workbench, input);
  const result = await runProgram(engine, program, contextOf(call));
  call.usage({ jails: 1, cpu_ms: result.cpu_ms });
  call.account("sandbox_run", { status: result.status, backend: result.isolation.backend });
  return result;
}

/** What a run needs from a call; output is reported live, last line first. */
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

async function programOf(workbench: Workbench, input: RunInput): Promise<Program> {
  const language: Language = input.language === "javascript" ? "node" : input.language;
  const { argv, files, mounts } = await commandOf(workbench, language, input);
  const inputText = input.input === undefined ? undefined : JSON.stringify(input.input);
  if (inputText !== undefined) files.push({ name: "input.json", content: inputText });
  return {
    files,
    stdin: input.stdin ?? inputText,
    collect: input.collect,
    policy: {
      argv,
      identity: identityHere(),
      limits: workbench.limits(input.limits),
      mounts: [...workbench.mounts(input.input_dirs), ...mounts],
      env: { ...guestEnvironment(), ...input.env },
    },
  };
}

/** The environment of every guest; nothing of the worker's is in it. */
export function guestEnvironment(): Record<string, string> {
  return { PATH: GUEST_PATH, HOME: WORK_FOLDER, TMPDIR: "/tmp", LANG: "C.UTF-8" };
}

async function commandOf(
  workbench: Workbench,
  language: Language,
  { code, argv = [], files }: RunInput,
): Promise<{ argv: string[]; files: StagedFile[]; mounts: readonly Mount[] }> {
  const staged = Object.entries(files).map(([name, content]) => ({ name, content }));
  if (language === "command") {
    if (code !== undefined || argv.length === 0) {
      const message = 'language "command" takes argv and no code';
      throw new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: ["argv", "code"] });
    }
    return { argv, files: staged, mounts: [] };
  }
  const interpreter = await workbench.interpreter(language);
  if (code === undefined && argv.length === 0) {
    const message = "Give code, or argv for the interpreter";
    throw new CjmError("CAPABILITY_INPUT", message, { fieldsInvalid: ["code", "argv"] });
  }
  const program = PROGRAMS[language];
  const words = code === undefined ? argv : [...program.args, ...argv];
  if (code !== undefined) staged.push({ name: program.file, content: code });
  return { argv: [interpreter.path, ...words], files: staged, mounts: interpreter.mounts };
}
