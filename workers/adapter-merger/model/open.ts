import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { z } from "cjm-substrate/worker";
import { MergeFault } from "../fault.ts";
import { isFloatDtype } from "../safetensors/dtype.ts";
import type { TensorInfo } from "../safetensors/header.ts";
import { SafetensorsFile } from "../safetensors/reader.ts";

export const SINGLE_NAME = "model.safetensors";
export const INDEX_NAME = "model.safetensors.index.json";
const INDEX_MAX_BYTES = 64 * 1024 * 1024;
const SIDE_MAX_BYTES = 64 * 1024 * 1024;
const WEIGHTS = /\.(?:safetensors|bin|pt|pth|gguf|onnx|h5|msgpack|ckpt|index\.json)$/u;

const indexSchema = z.looseObject({
  weight_map: z.record(
    z.string(),
    z.string().regex(/^[^/\\]+\.safetensors$/u, "expected a file name"),
  ),
});

/** A tensor of a checkpoint and the file that holds it. */
export interface HeldTensor {
  readonly path: string;
  readonly info: TensorInfo;
}

/** A checkpoint on disk: everything but the values of its tensors. */
export interface OpenedModel {
  readonly folder: string;
  readonly tensors: ReadonlyMap<string, HeldTensor>;
  /** Names of the weight files, the index first where there is one. */
  readonly files: readonly string[];
  readonly bytes: number;
}

/** @throws {MergeFault} `FILE_INVALID` or `CAPABILITY_INPUT` for a folder that is no checkpoint */
export function openModel(folder: string): OpenedModel {
  const index = join(folder, INDEX_NAME);
  if (existsSync(index)) return openSharded(folder, index);
  if (!existsSync(join(folder, SINGLE_NAME))) {
    const message = `${folder} holds neither ${INDEX_NAME} nor ${SINGLE_NAME}`;
    throw new MergeFault("CAPABILITY_INPUT", "path", message);
  }
  const tensors = readTensors(join(folder, SINGLE_NAME));
  return opened(folder, new Map(tensors.map((held) => [held.info.name, held])), [SINGLE_NAME]);
}

function openSharded(folder: string, index: string): OpenedModel {
  const wanted = readIndex(index);
  const tensors = new Map<string, HeldTensor>();
  const names = [...new Set(Object.values(wanted))].sort();
  for (const name of names) {
    for (const held of readTensors(join(folder, name))) {
      const tensor = held.info.name;
      if (wanted[tensor] !== name || tensors.has(tensor)) {
        throw new MergeFault(
          "FILE_INVALID",
          "index",
          `${index} does not place "${tensor}" in ${name}`,
        );
      }
      tensors.set(tensor, held);
    }
  }
  const missing = Object.keys(wanted).find((tensor) => !tensors.has(tensor));
  if (missing !== undefined) {
    throw new MergeFault(
      "FILE_INVALID",
      "index",
      `${index} names "${missing}", which no file holds`,
    );
  }
  return opened(folder, tensors, [INDEX_NAME, ...names]);
}

function opened(
  folder: string,
  tensors: ReadonlyMap<string, HeldTensor>,
  files: readonly string[],
): OpenedModel {
  const bytes = files.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0);
  return { folder, tensors, files, bytes };
}

function readTensors(path: string): HeldTensor[] {
  using file = SafetensorsFile.open(path);
  const held = [...file.header.tensors.values()].map((info) => ({ path, info }));
  return held.sort((a, b) => a.info.start - b.info.start);
}

function readIndex(path: string): Readonly<Record<string, string>> {
  if (statSync(path).size > INDEX_MAX_BYTES) {
    throw new MergeFault("FILE_INVALID", "index", `${path} is larger than 64 MiB`);
  }
  let raw: unknown;
  try {
    raw = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new MergeFault("FILE_INVALID", "index", `${path} is not JSON: ${why}`);
  }
  const parsed = indexSchema.safeParse(raw);
  if (parsed.success) return parsed.data.weight_map;
  throw new MergeFault("FILE_INVALID", "index", `${path}:\n${z.prettifyError(parsed.error)}`);
}

/** Config, tokenizer and the like: every file of a checkpoint that is no weight, sorted. */
export function sideFiles(folder: string): readonly string[] {
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.name.startsWith(".") && !WEIGHTS.test(entry.name))
    .map(({ name }) => name)
    .filter((name) => statSync(join(folder, name)).size <= SIDE_MAX_BYTES)
    .sort();
}

/** Every way in which checkpoints do not fit the reference. */
export function modelMismatches(
  reference: OpenedModel,
  models: readonly OpenedModel[],
): readonly string[] {
  return models.flatMap((model, at) => {
    const extra = [...model.tensors.keys()].filter((name) => !reference.tensors.has(name));
    const found = extra.map(
      (name) => `models[${at}]: tensor ${name} is not in ${reference.folder}`,
    );
    for (const [name, { info }] of reference.tensors) {
      const own = model.tensors.get(name)?.info;
      if (own === undefined) found.push(`models[${at}]: tensor ${name} is missing`);
      else if (!fits(info, own))
        found.push(`models[${at}]: tensor ${name} is ${describe(own)}, not ${describe(info)}`);
    }
    return found;
  });
}

/** Floats of different widths can be merged; anything else must be of one dtype. */
function fits(wanted: TensorInfo, own: TensorInfo): boolean {
  if (wanted.shape.join() !== own.shape.join()) return false;
  return wanted.dtype === own.dtype || (isFloatDtype(wanted.dtype) && isFloatDtype(own.dtype));
}

function describe({ dtype, shape }: TensorInfo): string {
  return `${dtype} [${shape.join(", ")}]`;
}
