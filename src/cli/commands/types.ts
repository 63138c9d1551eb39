import { readFile } from "node:fs/promises";
import { resolve } from "node:path";
import { loadManifests, manifestSearchPaths } from "../../config/index.ts";
import { CjmError } from "../../errors/index.ts";
import { closest } from "../../util/suggest.ts";
import { bindingTypes, type BoundInstance } from "../binding-types.ts";
import { configOf, type GlobalOptions } from "../context.ts";
import { EXIT } from "../exit-codes.ts";
import { writeUserFile } from "../user-file.ts";
import { color, print, printError } from "../terminal.ts";

export interface TypesOptions extends GlobalOptions {
  readonly out?: string;
  readonly only?: readonly string[];
  readonly instance?: readonly string[];
  readonly check?: boolean;
}

export async function typesCommand(options: TypesOptions): Promise<number> {
  const config = await configOf(options);
  const { capabilities } = await loadManifests(manifestSearchPaths(config));
  const codeOf = (name: string): BoundInstance["code"] => {
    const found = capabilities.get(name);
    if (found !== undefined) return found.manifest.code;
    const meant = closest(name, [...capabilities.keys()]);
    const hint = meant === undefined ? "" : `; did you mean "${meant}"?`;
    throw new CjmError("CAPABILITY_UNKNOWN", `There is no capability "${name}"${hint}`);
  };
  const names = options.only ?? [...capabilities.keys()].sort();
  const text = await bindingTypes([
    ...names.map((name) => ({ id: name, code: codeOf(name) })),
    ...(options.instance ?? []).map((setting) => {
      const [id = "", capability] = setting.split("=");
      if (capability === undefined || id === "") {
        throw new CjmError("CAPABILITY_INPUT", `--instance ${setting}: expected <id>=<capability>`);
      }
      return { id, code: codeOf(capability) };
    }),
  ]);
  return await deliver(text, options);
}

async function deliver(text: string, { out, check }: TypesOptions): Promise<number> {
  if (out === undefined) {
    if (check === true) throw new CjmError("CAPABILITY_INPUT", "--check needs --out <path>");
    print(text.trimEnd());
    return EXIT.ok;
  }
  const path = resolve(out);
  const isCurrent = (await readFile(path, "utf8").catch(() => "")) === text;
  if (check === true && !isCurrent) {
    printError(`${out} is stale; run: cjm-ctl types --out ${out}`);
    return EXIT.failed;
  }
  if (!isCurrent) await writeUserFile(path, text);
  print(`${color.green(isCurrent ? "unchanged" : "written")}  ${out}`);
  return EXIT.ok;
}
