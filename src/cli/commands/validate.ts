import { existsSync } from "node:fs";
import { describeProblem } from "../../config/index.ts";
import { CjmError } from "../../errors/index.ts";
import {
  detectFormat,
  FILE_FORMATS,
  type FileFormat,
  validateFile,
} from "../../provision/index.ts";
import { checkAgainstManifests } from "../composition-check.ts";
import { readComposition } from "../composition-source.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, harmless, print, printJson } from "../terminal.ts";

export interface ValidateOptions extends GlobalOptions {
  readonly format?: string;
  readonly json?: boolean;
}

interface Verdict {
  readonly format: FileFormat | "composition";
  readonly errors: readonly string[];
  readonly warnings: readonly string[];
}

export async function validateCommand(path: string, options: ValidateOptions): Promise<number> {
  if (!existsSync(path)) throw new CjmError("FILE_INVALID", `${path}: no such file`);
  const { format, errors, warnings } = await judge(path, options);
  const valid = errors.length === 0;
  if (options.json === true) printJson({ path, format, valid, errors, warnings });
  else {
    const verdict = valid ? color.green("valid") : color.red("invalid");
    print(`${verdict}  ${path} (${format})`);
    for (const line of errors) print(harmless(line));
    for (const line of warnings) print(`${color.yellow("warning")}: ${harmless(line)}`);
  }
  return valid ? EXIT.ok : EXIT.usage;
}

async function judge(path: string, options: ValidateOptions): Promise<Verdict> {
  const format = isFileFormat(options.format)
    ? options.format
    : options.format === undefined
      ? await detected(path)
      : "composition";
  if (format === "composition") {
    return { format, errors: await compositionErrors(path, options), warnings: [] };
  }
  const { errors, warnings } = await validateFile(path, format);
  return { format, errors: errors.map(describeProblem), warnings: warnings.map(describeProblem) };
}

/** A YAML file that is none of the known ones describes a composition. */
async function detected(path: string): Promise<Verdict["format"]> {
  try {
    return (await detectFormat(path)) ?? "composition";
  } catch (error) {
    // What cannot even be read is told by the check itself.
    if (error instanceof CjmError) return "composition";
    throw error;
  }
}

function isFileFormat(text: string | undefined): text is FileFormat {
  return FILE_FORMATS.some((format) => format === text);
}

async function compositionErrors(path: string, options: ValidateOptions): Promise<string[]> {
  try {
    const config = await configOf(options);
    const { composition } = await readComposition(path, config);
    await checkAgainstManifests(composition, config);
    return [];
  } catch (error) {
    if (error instanceof CjmError) return error.message.split("\n");
    throw error;
  }
}
