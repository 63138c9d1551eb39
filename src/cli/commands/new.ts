import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { parseDocument, YAMLSeq } from "yaml";
import { CjmError, unwritable } from "../../errors/index.ts";
import { NAME_PATTERN } from "../../util/ids.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { pythonClass, pythonModule, pythonTemplate } from "../templates/python.ts";
import { typescriptTemplate } from "../templates/typescript.ts";
import { color, print, printJson } from "../terminal.ts";
import { writeUserFile } from "../user-file.ts";

export interface NewOptions extends GlobalOptions {
  readonly lang: "ts" | "python";
  readonly json?: boolean;
}

/**
 * Writes a working capability with a test into a folder of its name, and its entry into
 * capabilities.yaml; both or neither.
 *
 * @throws {CjmError} `FILE_INVALID` if the folder is there already or the file is not YAML;
 *   `CAPABILITY_INPUT` for a name that is none; `STORE_REJECTED` if they cannot be written.
 */
export async function newCommand(name: string, options: NewOptions): Promise<number> {
  if (!NAME_PATTERN.test(name) || !/[A-Za-z0-9]/u.test(name)) {
    throw new CjmError("CAPABILITY_INPUT", `"${name}" must be 1 to 64 letters, digits, _ or -`);
  }
  const { capabilitiesConfig } = await configOf(options);
  const folder = join(dirname(capabilitiesConfig), name);
  if (existsSync(folder)) {
    throw new CjmError("FILE_INVALID", `${folder} is there already; choose another name`);
  }
  const isPython = options.lang === "python";
  const files = isPython ? pythonTemplate(name) : typescriptTemplate(name);
  const entry = isPython
    ? { name, path: name, env: "venv", entry: `${pythonModule(name)}:${pythonClass(name)}` }
    : { name, path: name, env: "npm" };
  const listed = await withEntry(capabilitiesConfig, entry);
  // Before the clean-up is responsible: a folder that somebody else has just made is not ours to remove.
  await makeFolder(folder);
  try {
    for (const [file, text] of Object.entries(files)) await writeFile(join(folder, file), text);
    await writeUserFile(capabilitiesConfig, listed);
  } catch (error) {
    await rm(folder, { recursive: true, force: true }).catch(() => undefined);
    throw unwritable(folder, error);
  }
  report(folder, { name, files: Object.keys(files), list: capabilitiesConfig }, options);
  return EXIT.ok;
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(dirname(folder), { recursive: true });
    await mkdir(folder);
  } catch (error) {
    throw unwritable(folder, error);
  }
}

/** The file's text with one entry more; comments and order stay. */
async function withEntry(path: string, entry: Readonly<Record<string, string>>): Promise<string> {
  const text = existsSync(path) ? await readFile(path, "utf8") : "capabilities: []\n";
  const document = parseDocument(text);
  const list = document.get("capabilities");
  if (document.errors.length > 0 || (list != null && !(list instanceof YAMLSeq))) {
    throw new CjmError("FILE_INVALID", `${path} is no list of capabilities`);
  }
  if (list == null || list.items.length === 0) document.set("capabilities", [entry]);
  else document.addIn(["capabilities"], entry);
  return document.toString();
}

function report(
  folder: string,
  made: { readonly name: string; readonly files: readonly string[]; readonly list: string },
  { lang, json }: NewOptions,
): void {
  if (json === true) {
    printJson({ name: made.name, lang, folder, files: made.files });
    return;
  }
  const here = relative(process.cwd(), folder) || ".";
  for (const file of made.files) print(`wrote ${join(here, file)}`);
  print(`added ${made.name} to ${relative(process.cwd(), made.list)}`);
  print(color.dim(`next: cjm-ctl install-all --only ${made.name}`));
}
