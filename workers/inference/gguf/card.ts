import type { ModelCard } from "../task/schemas.ts";
import { numberOf, readGguf, textOf } from "./read.ts";

/** Names of `general.file_type`, as llama.cpp prints them. */
const FILE_TYPES: ReadonlyMap<number, string> = new Map([
  [0, "F32"],
  [1, "F16"],
  [2, "Q4_0"],
  [3, "Q4_1"],
  [7, "Q8_0"],
  [8, "Q5_0"],
  [9, "Q5_1"],
  [10, "Q2_K"],
  [11, "Q3_K_S"],
  [12, "Q3_K_M"],
  [13, "Q3_K_L"],
  [14, "Q4_K_S"],
  [15, "Q4_K_M"],
  [16, "Q5_K_S"],
  [17, "Q5_K_M"],
  [18, "Q6_K"],
  [32, "BF16"],
]);

/** What a GGUF file says of itself; its weights are not read. */
export async function cardOf(path: string, id: string, sha256?: string): Promise<ModelCard> {
  const { metadata, tensors, fileBytes } = await readGguf(path);
  const architecture = textOf(metadata, "general.architecture") ?? null;
  const parameters = tensors.reduce(
    (sum, { dimensions }) => sum + dimensions.reduce((product, size) => product * size, 1),
    0,
  );
  return {
    id,
    path,
    format: "gguf",
    architecture,
    quantization: quantization(numberOf(metadata, "general.file_type"), tensors),
    parameters,
    bytes: fileBytes,
    context_length: numberOf(metadata, `${architecture}.context_length`) ?? null,
    chat_template: textOf(metadata, "tokenizer.chat_template") !== undefined,
    sha256: sha256 ?? null,
  };
}

/** The file's own word, or the type that holds most bytes. */
function quantization(
  fileType: number | undefined,
  tensors: readonly { readonly type: string; readonly bytes: number }[],
): string | null {
  const named = FILE_TYPES.get(fileType ?? -1);
  if (named !== undefined) return named;
  const bytes = new Map<string, number>();
  for (const tensor of tensors) {
    bytes.set(tensor.type, (bytes.get(tensor.type) ?? 0) + tensor.bytes);
  }
  return [...bytes].sort((a, b) => b[1] - a[1])[0]?.[0] ?? null;
}
