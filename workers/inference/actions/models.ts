import type { Dirent } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { fileRef, type Call, type z } from "cjm-substrate/worker";
import { errnoOf, refuse } from "../fault.ts";
import { cardOf } from "../gguf/card.ts";
import { convertLora } from "../gguf/convert-lora.ts";
import { convertModel } from "../gguf/convert-model.ts";
import { readGguf } from "../gguf/read.ts";
import type { Service } from "../service.ts";
import type { ModelCard } from "../task/schemas.ts";
import type {
  convertAdapterInputSchema,
  convertModelInputSchema,
  convertOutputSchema,
  listModelsOutputSchema,
} from "./schemas.ts";

const FILES_MAX = 1000;
const DEPTH_MAX = 4;

/** The GGUF models in the models folders, by what their headers say. */
export async function listModels(
  folders: readonly string[],
): Promise<z.output<typeof listModelsOutputSchema>> {
  const models: ModelCard[] = [];
  const unreadable: { path: string; reason: string }[] = [];
  const files: string[] = [];
  for (const folder of folders) await collect(folder, DEPTH_MAX, files);
  for (const path of new Set(files)) {
    try {
      models.push(await cardOf(path, basename(path, ".gguf")));
    } catch (error) {
      unreadable.push({ path, reason: error instanceof Error ? error.message : String(error) });
    }
  }
  return { models, unreadable };
}

async function collect(folder: string, depth: number, files: string[]): Promise<void> {
  const entries = await entriesOf(folder);
  for (const entry of entries.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    if (files.length >= FILES_MAX) return;
    const path = join(folder, entry.name);
    if (entry.isDirectory() && depth > 1) await collect(path, depth - 1, files);
    else if (!entry.isDirectory() && entry.name.endsWith(".gguf")) files.push(path);
  }
}

async function entriesOf(folder: string): Promise<Dirent[]> {
  try {
    return await readdir(folder, { withFileTypes: true });
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return [];
    throw error;
  }
}

/** What a model says of itself, without loading it. */
export async function modelInfo(service: Service, path: string | undefined): Promise<ModelCard> {
  if (path === undefined) return await service.engine.card();
  const full = resolve(service.modelsFolder, path);
  return await cardOf(full, basename(full, ".gguf"));
}

export async function convertModelAction(
  { path, type }: z.output<typeof convertModelInputSchema>,
  call: Call,
): Promise<z.output<typeof convertOutputSchema>> {
  const target = join(call.outputFolder, `${basename(resolve(path))}-${type.toLowerCase()}.gguf`);
  const { tensors } = await convertModel(resolve(path), target, {
    type,
    signal: call.signal,
    progress: (done, total) => call.progress(done / total, "converting the model"),
  });
  return { file: await fileRef(target, "application/octet-stream"), tensors };
}

export async function convertAdapterAction(
  service: Service,
  { path, model }: z.output<typeof convertAdapterInputSchema>,
  call: Call,
): Promise<z.output<typeof convertOutputSchema>> {
  const base = model ?? (await service.engine.card()).path;
  if (base === null) {
    throw refuse("model_missing", "Name the base model's GGUF file", { fields: ["model"] });
  }
  const header = await readGguf(resolve(service.modelsFolder, base));
  const target = join(call.outputFolder, `${basename(resolve(path))}.gguf`);
  await convertLora(resolve(path), target, header, { signal: call.signal });
  const { tensors } = await readGguf(target);
  return { file: await fileRef(target, "application/octet-stream"), tensors: tensors.length };
}
