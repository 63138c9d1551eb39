import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { execa } from "execa";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const PTY = fileURLToPath(new URL("pseudo_terminal.py", import.meta.url));

export interface TerminalOptions {
  readonly dataDir: string;
  readonly cwd?: string;
  readonly columns?: number;
  readonly rows?: number;
  /** Waits for a text and then types, in turn. */
  readonly keys?: readonly (readonly [waitFor: string, type: string])[];
  readonly env?: Readonly<Record<string, string>>;
}

export interface TerminalResult {
  readonly exitCode: number | undefined;
  /** Everything the terminal received, control sequences too. */
  readonly raw: string;
  /** The same as lines of text. */
  readonly lines: readonly string[];
}

/** Runs the built `cjm-ctl` in a pseudo-terminal. */
export async function runInTerminal(
  args: readonly string[],
  options: TerminalOptions,
): Promise<TerminalResult> {
  const { dataDir, cwd = ROOT, columns = 80, rows = 24, keys = [], env = {} } = options;
  const { CI: _ci, NO_COLOR: _noColor, FORCE_COLOR: _force, ...inherited } = process.env;
  const command = [PTY, String(rows), String(columns), JSON.stringify(keys)];
  const { stdout, exitCode } = await execa(
    "python3",
    [...command, process.execPath, MAIN, ...args],
    {
      cwd,
      env: { ...inherited, TERM: "xterm-256color", CJM_DATA_DIR: dataDir, ...env },
      extendEnv: false,
      reject: false,
      stdin: "ignore",
    },
  );
  const text = stripVTControlCharacters(stdout).replaceAll("\r", "");
  return { exitCode, raw: stdout, lines: text.split("\n") };
}
