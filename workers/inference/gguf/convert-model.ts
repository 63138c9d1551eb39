import { basename } from "node:path";
import { refuse } from "../fault.ts";
import { text, u32, type FloatType, type GgufValue } from "./format.ts";
import { readLlamaConfig, ropeFactors, shapeMetadata, type LlamaShape } from "./llama-config.ts";
import { llamaModule, type Heads } from "./llama-names.ts";
import { permuteHeads } from "./permute.ts";
import { readCheckpoint, type SourceTensor } from "./safetensors.ts";
import { tokenizerMetadata } from "./tokenizer.ts";
import { writeGguf, type TensorSource, type WriteOptions } from "./write.ts";

/** Computed by llama.cpp itself. */
const DERIVED = /rotary_emb\.inv_freq$/u;

export interface ConvertedModel {
  readonly path: string;
  readonly sha256: string;
  readonly tensors: number;
}

/**
 * Converts a Llama-family checkpoint (config.json, tokenizer.json, safetensors) to a GGUF file.
 *
 * Weights become `type`; norms stay F32, as llama.cpp wants them. F32 from F32, F16 or BF16 is exact.
 *
 * @param folder as Hugging Face's `save_pretrained` writes it
 * @param path the GGUF file to write
 * @throws {CjmError} `model_missing`, `model_invalid`, `model_unsupported`
 */
export async function convertModel(
  folder: string,
  path: string,
  options: WriteOptions & { readonly type?: FloatType } = {},
): Promise<ConvertedModel> {
  const type = options.type ?? "F32";
  const shape = await readLlamaConfig(folder);
  const tensors = [...tensorSources(folder, shape, await readCheckpoint(folder), type)];
  const metadata = new Map<string, GgufValue>([
    ["general.architecture", text("llama")],
    ["general.name", text(basename(folder))],
    ["general.file_type", u32(type === "F32" ? 0 : 1)],
    ...shapeMetadata(shape, folder),
    ...(await tokenizerMetadata(folder, tokenIds(shape))),
  ]);
  const sha256 = await writeGguf(path, { metadata, tensors }, options);
  return { path, sha256, tensors: tensors.length };
}

function tokenIds({ config }: LlamaShape): Parameters<typeof tokenizerMetadata>[1] {
  const eos = config.eos_token_id ?? [];
  return {
    vocabSize: config.vocab_size,
    bos: config.bos_token_id ?? undefined,
    eos: typeof eos === "number" ? [eos] : eos,
    pad: config.pad_token_id ?? undefined,
  };
}

function* tensorSources(
  folder: string,
  shape: LlamaShape,
  tensors: ReadonlyMap<string, SourceTensor>,
  type: FloatType,
): Generator<TensorSource> {
  const factors = ropeFactors(shape);
  if (factors !== undefined) {
    const dimensions = [factors.length];
    yield { name: "rope_freqs.weight", dimensions, type: "F32", values: () => factors };
  }
  let found = 0;
  for (const tensor of tensors.values()) {
    if (DERIVED.test(tensor.name) || isTiedHead(tensor, shape)) continue;
    yield converted(folder, shape, tensor, type);
    found += 1;
  }
  const isTied = shape.config.tie_word_embeddings === true;
  const expected = shape.layers * 9 + (isTied ? 2 : 3);
  if (found !== expected) {
    const message = `${folder} has ${found} tensors where its config.json makes ${expected}`;
    throw refuse("model_invalid", message);
  }
}

/** llama.cpp reads the embedding where a model has no head of its own. */
function isTiedHead({ name }: SourceTensor, { config }: LlamaShape): boolean {
  return name === "lm_head.weight" && config.tie_word_embeddings === true;
}

function converted(
  folder: string,
  shape: LlamaShape,
  tensor: SourceTensor,
  type: FloatType,
): TensorSource {
  const module = tensor.name.endsWith(".weight")
    ? llamaModule(tensor.name.slice(0, -".weight".length))
    : undefined;
  if (module === undefined) {
    throw refuse("model_unsupported", `${folder} has tensor ${tensor.name}, which Llama has not`);
  }
  return {
    name: `${module.name}.weight`,
    dimensions: tensor.shape.toReversed(),
    type: tensor.shape.length === 1 ? "F32" : type,
    values: async () => permuted(await tensor.read(), tensor, headCount(shape, module.heads)),
  };
}

function permuted(
  values: Float32Array,
  { shape }: SourceTensor,
  heads: number | undefined,
): Float32Array {
  return heads === undefined ? values : permuteHeads(values, shape[0] ?? 0, heads);
}

/** Heads that order the rows of a module; undefined where none do. */
export function headCount(
  { heads, keyHeads }: { readonly heads: number; readonly keyHeads: number },
  whose: Heads,
): number | undefined {
  if (whose === undefined) return undefined;
  return whose === "query" ? heads : keyHeads;
}
