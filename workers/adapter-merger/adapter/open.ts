import { existsSync } from "node:fs";
import { join } from "node:path";
import { MergeFault } from "../fault.ts";
import { isFloatDtype, type FloatDtype } from "../safetensors/dtype.ts";
import { elementCount, type TensorInfo } from "../safetensors/header.ts";
import { SafetensorsFile } from "../safetensors/reader.ts";
import {
  configRefusals,
  moduleScale,
  readAdapterConfig,
  scalingOf,
  type AdapterConfig,
} from "./config.ts";

export const WEIGHTS_NAME = "adapter_model.safetensors";
export const CONFIG_NAME = "adapter_config.json";

/** One pair of factors: the delta is `scaling * B * A`, both flattened to two dimensions. */
export interface LoraModule {
  /** Name inside the base model, without peft's prefix. */
  readonly module: string;
  readonly a: TensorInfo;
  readonly b: TensorInfo;
  readonly rank: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly scaling: number;
  readonly dtypeA: FloatDtype;
  readonly dtypeB: FloatDtype;
}

/** A LoRA adapter on disk: everything but the values of its tensors. */
export interface OpenedAdapter {
  readonly folder: string;
  readonly weightsPath: string;
  readonly configPath: string;
  readonly config: AdapterConfig;
  readonly sizeBytes: number;
  /** By the part of the tensor names that A and B share. */
  readonly modules: ReadonlyMap<string, LoraModule>;
}

const PAIR = /^(?<module>.+)\.lora_(?:embedding_)?(?<side>[AB])(?:\.weight)?$/u;
const PREFIX = /^base_model\.model\./u;

/**
 * Reads the header and config of an adapter folder; no tensor is read.
 *
 * @throws {MergeFault} `FILE_INVALID` for a malformed file, `CAPABILITY_INPUT` with every reason
 * for which this adapter cannot be merged (DoRA, biases, saved modules, unpaired tensors).
 */
export function openAdapter(folder: string): OpenedAdapter {
  const weightsPath = join(folder, WEIGHTS_NAME);
  const configPath = join(folder, CONFIG_NAME);
  for (const path of [weightsPath, configPath]) {
    if (!existsSync(path)) throw new MergeFault("CAPABILITY_INPUT", "path", `${path} is missing`);
  }
  const config = readAdapterConfig(configPath);
  using file = SafetensorsFile.open(weightsPath);
  const { modules, refusals } = pairTensors(file.header.tensors, config);
  const all = [...configRefusals(config), ...refusals];
  if (all.length > 0) {
    const list = all.map((refusal) => `- ${refusal}`).join("\n");
    throw new MergeFault(
      "CAPABILITY_INPUT",
      "unsupported",
      `${folder} cannot be merged:\n${list}`,
      {
        refusals: all,
      },
    );
  }
  return { folder, weightsPath, configPath, config, sizeBytes: file.sizeBytes, modules };
}

interface Sides {
  a?: TensorInfo;
  b?: TensorInfo;
}

function pairTensors(
  tensors: ReadonlyMap<string, TensorInfo>,
  config: AdapterConfig,
): { modules: Map<string, LoraModule>; refusals: string[] } {
  const refusals: string[] = [];
  const sides = new Map<string, Sides>();
  for (const info of tensors.values()) {
    if (!takeSide(sides, info)) refusals.push(unknownTensor(info.name));
  }
  const modules = new Map<string, LoraModule>();
  for (const [name, found] of [...sides].sort(([a], [b]) => (a < b ? -1 : 1))) {
    const made = makeModule(name, found, config);
    if (typeof made === "string") refusals.push(made);
    else modules.set(name, made);
  }
  if (sides.size === 0 && refusals.length === 0) refusals.push("it holds no LoRA tensors");
  return { modules, refusals };
}

/** False for a tensor that is no LoRA factor. */
function takeSide(sides: Map<string, Sides>, info: TensorInfo): boolean {
  const groups = PAIR.exec(info.name)?.groups;
  const name = groups?.["module"];
  if (name === undefined) return false;
  const found = sides.get(name) ?? {};
  if (groups?.["side"] === "A") found.a = info;
  else found.b = info;
  sides.set(name, found);
  return true;
}

function unknownTensor(name: string): string {
  if (name.includes("lora_magnitude_vector")) return `DoRA magnitudes: ${name}`;
  if (name.endsWith(".bias")) return `trained bias: ${name}`;
  return `not a LoRA factor (a saved module?): ${name}`;
}

function makeModule(name: string, { a, b }: Sides, config: AdapterConfig): LoraModule | string {
  if (a === undefined || b === undefined) return `${name} has only one of lora_A and lora_B`;
  const { dtype: dtypeA } = a;
  const { dtype: dtypeB } = b;
  if (!isFloatDtype(dtypeA)) return `${a.name} is ${dtypeA}`;
  if (!isFloatDtype(dtypeB)) return `${b.name} is ${dtypeB}`;
  const shapes = shapeProblem(name, a, b);
  if (shapes !== undefined) return shapes;
  const module = name.replace(PREFIX, "");
  const [rank = 0] = a.shape;
  const [outputs = 0] = b.shape;
  const declared = moduleScale(config, module).rank;
  if (declared !== rank) return `${name} has rank ${rank}, its config says ${declared}`;
  const inputs = elementCount(a.shape) / rank;
  const scaling = scalingOf(config, module, rank);
  return { module, a, b, rank, inputs, outputs, scaling, dtypeA, dtypeB };
}

function shapeProblem(name: string, a: TensorInfo, b: TensorInfo): string | undefined {
  if (elementCount(a.shape) === 0 || elementCount(b.shape) === 0) return `${name} is empty`;
  const [rank = 0] = a.shape;
  const [outputs = 0, columns = 0] = b.shape;
  const isMatrix = a.shape.length >= 2 && b.shape.length >= 2;
  // A convolution's B has trailing dimensions of 1.
  if (isMatrix && columns === rank && elementCount(b.shape) === outputs * rank) return undefined;
  const [shapeA, shapeB] = [a, b].map(({ shape }) => `[${shape.join(", ")}]`);
  return `${name}: lora_A ${shapeA} and lora_B ${shapeB} do not multiply`;
}
