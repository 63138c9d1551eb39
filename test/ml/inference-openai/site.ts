import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createCapability } from "../../../workers/inference/capability.ts";
import { convertLora } from "../../../workers/inference/gguf/convert-lora.ts";
import { readGguf } from "../../../workers/inference/gguf/read.ts";
import type { ParameterName } from "../../../workers/inference/task/parameters.ts";
import { writeTinyAdapter, writeTinyModel } from "../../integration/inference/tiny-model.ts";
import { inProcess, type TextClient } from "../../support/text-generation.ts";

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/**
 * A Python with the server's wheel: the one that `CJM_LLAMA_SERVER_PYTHON` names, or an environment
 * made here and kept under node_modules for the next run.
 */
export function python(): string {
  const named = process.env["CJM_LLAMA_SERVER_PYTHON"];
  if (named !== undefined) return named;
  const folder = path("../../../node_modules/.cache/llama-server-venv");
  const made = join(folder, "bin", "python");
  const complete = join(folder, "complete");
  if (existsSync(complete)) return made;
  const requirements = ["-r", path("requirements.txt")];
  execFileSync("python3", ["-m", "venv", "--clear", folder], { stdio: "inherit" });
  execFileSync(made, ["-m", "pip", "install", "--quiet", ...requirements], { stdio: "inherit" });
  writeFileSync(complete, "");
  return made;
}

/** A tiny model, two adapters of it, and the command that serves them. */
export interface Site {
  readonly folder: string;
  readonly model: string;
  readonly adapters: readonly [string, string];
  readonly command: readonly string[];
  readonly remove: () => void;
}

export async function makeSite(): Promise<Site> {
  const folder = mkdtempSync(join(tmpdir(), "cjm-inference-"));
  const model = await writeTinyModel(folder, { ascii: true, context: 4096 });
  const base = await readGguf(model);
  const convert = async (name: string, seed: number): Promise<string> => {
    const peft = await writeTinyAdapter(join(folder, name), { seed });
    const file = join(folder, `${name}.gguf`);
    await convertLora(peft, file, base);
    return file;
  };
  const adapters = [await convert("first", 7), await convert("second", 8)] as const;
  const command = [python(), path("llama_server.py"), "{port}", model, ...adapters];
  const remove = (): void => rmSync(folder, { recursive: true, force: true });
  return { folder, model, adapters, command, remove };
}

/** The worker with one engine, and what it says it honours. */
export interface Served extends AsyncDisposable {
  readonly client: TextClient;
  readonly honours: () => ReadonlySet<ParameterName>;
}

export async function serve(site: Site, config: object): Promise<Served> {
  const folders = { data: join(site.folder, "data"), output: site.folder };
  const client = inProcess(createCapability(), folders);
  await client.post("/initialize", config);
  const status = (await client.call("status", {})) as { parameters: ParameterName[] };
  return {
    client,
    honours: () => new Set(status.parameters),
    [Symbol.asyncDispose]: async () => {
      await client.post("/cleanup", {});
    },
  };
}
