import { basename, extname, resolve } from "node:path";
import { parseCompositionFile } from "../../composition/index.ts";
import {
  checkYaml,
  cjmConfigSchema,
  readCapabilitiesFile,
  readManifest,
  readYaml,
  resolveIncludes,
} from "../../config/index.ts";
import { CjmError } from "../../errors/index.ts";
import { checkAgainstManifests } from "../composition-check.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { color, harmless, print, printJson } from "../terminal.ts";

export interface ValidateOptions extends GlobalOptions {
  readonly format?: string;
  readonly json?: boolean;
}

export async function validateCommand(path: string, options: ValidateOptions): Promise<number> {
  const format = options.format ?? (await detect(path));
  const error = await problemOf(path, format, options);
  if (options.json === true) printJson({ path, format, valid: error === null, error });
  else if (error === null) print(`${color.green("valid")}  ${path} (${format})`);
  else print(`${color.red("invalid")}  ${path} (${format})\n${harmless(error)}`);
  return error === null ? EXIT.ok : EXIT.usage;
}

async function problemOf(
  path: string,
  format: string,
  options: ValidateOptions,
): Promise<string | null> {
  try {
    await check(path, format, options);
    return null;
  } catch (error) {
    if (error instanceof CjmError) return error.message;
    throw error;
  }
}

async function check(path: string, format: string, options: ValidateOptions): Promise<void> {
  switch (format) {
    case "manifest":
      await readManifest(resolve(path));
      return;
    case "capabilities_yaml":
      await readCapabilitiesFile(path);
      return;
    case "cjm_yaml":
      checkYaml(await readYaml(path), cjmConfigSchema);
      return;
    default:
      await checkComposition(path, options);
  }
}

async function checkComposition(path: string, options: ValidateOptions): Promise<void> {
  const { value } = await readYaml(path);
  const composition = parseCompositionFile(await resolveIncludes(value, path));
  await checkAgainstManifests(composition, await configOf(options));
}

async function detect(path: string): Promise<string> {
  if (extname(path) === ".json") return "manifest";
  if (basename(path) === "cjm.yaml") return "cjm_yaml";
  const { value } = await readYaml(path);
  const isList = typeof value === "object" && value !== null && "capabilities" in value;
  return isList ? "capabilities_yaml" : "composition";
}
