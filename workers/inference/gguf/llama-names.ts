/** Projections of a Llama layer, by Hugging Face's name and by GGUF's. */
const PROJECTIONS: ReadonlyMap<string, string> = new Map([
  ["self_attn.q_proj", "attn_q"],
  ["self_attn.k_proj", "attn_k"],
  ["self_attn.v_proj", "attn_v"],
  ["self_attn.o_proj", "attn_output"],
  ["mlp.gate_proj", "ffn_gate"],
  ["mlp.up_proj", "ffn_up"],
  ["mlp.down_proj", "ffn_down"],
]);
const NORMS: ReadonlyMap<string, string> = new Map([
  ["input_layernorm", "attn_norm"],
  ["post_attention_layernorm", "ffn_norm"],
]);
const TOP: ReadonlyMap<string, string> = new Map([
  ["model.embed_tokens", "token_embd"],
  ["model.norm", "output_norm"],
  ["lm_head", "output"],
]);

/** Whose heads order the rows of a module, where they do. */
export type Heads = "query" | "key" | undefined;

export interface ModuleName {
  /** Without `.weight`. */
  readonly name: string;
  readonly heads: Heads;
}

/** GGUF's name of a module of a Llama-family model; undefined for one that it has not. */
export function llamaModule(module: string): ModuleName | undefined {
  const top = TOP.get(module);
  if (top !== undefined) return { name: top, heads: undefined };
  const [, layer, rest = ""] = /^model\.layers\.(\d+)\.(.+)$/u.exec(module) ?? [];
  const part = PROJECTIONS.get(rest) ?? NORMS.get(rest);
  if (layer === undefined || part === undefined) return undefined;
  return { name: `blk.${layer}.${part}`, heads: headsOf(part) };
}

function headsOf(part: string): Heads {
  if (part === "attn_q") return "query";
  return part === "attn_k" ? "key" : undefined;
}
