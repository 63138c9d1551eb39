import type { ResolvedAdapter } from "../engine.ts";
import { refuse } from "../fault.ts";
import { readGguf, textOf, type GgufHeader } from "../gguf/read.ts";

/**
 * Compares a LoRA GGUF with the model before llama.cpp sees it: it would stop at the first difference
 * with a line in its log.
 *
 * @throws {CjmError} `adapter_invalid`, `adapter_mismatch`
 */
export async function checkAdapter(adapter: ResolvedAdapter, model: GgufHeader): Promise<void> {
  const { metadata, tensors } = await readGguf(adapter.path);
  if (textOf(metadata, "general.type") !== "adapter") {
    throw refuse("adapter_invalid", `${adapter.path} is a GGUF file, but no adapter`);
  }
  const own = textOf(metadata, "general.architecture");
  const other = textOf(model.metadata, "general.architecture");
  if (own !== other) {
    throw refuse("adapter_mismatch", `${adapter.path} is for ${own}, the model is ${other}`);
  }
  const weights = new Map(model.tensors.map((tensor) => [tensor.name, tensor.dimensions]));
  for (const { name, dimensions } of tensors) {
    const weight = weights.get(name.replace(/\.lora_[ab]$/u, ""));
    const side = name.endsWith(".lora_a") ? 0 : 1;
    if (weight?.[side] !== dimensions[side]) {
      const message = `${adapter.path}: ${name} does not fit the model`;
      throw refuse("adapter_mismatch", message, { details: { tensor: name } });
    }
  }
}
