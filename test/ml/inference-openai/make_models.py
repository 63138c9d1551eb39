"""Writes a tiny random Llama as GGUF, and LoRA adapters for it: `make_models.py <folder>`.

The tokenizer is byte-level: 256 byte tokens, the merge "zq" that a tokenizer may not be without, and
four special ones, so that every text has a known number of tokens. The weights are random and large
enough for clear differences between tokens.
"""

import sys
from pathlib import Path

import gguf
import numpy as np

LAYERS, WIDTH, HEADS, FORWARD, CONTEXT, RANK = 2, 64, 4, 128, 512, 4
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_names():
    """GPT-2's printable name of each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            names[byte] = chr(byte)
        else:
            names[byte] = chr(256 + extra)
            extra += 1
    return [names[byte] for byte in range(256)]


def write_base(path):
    rng = np.random.default_rng(7)
    special = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>"]
    tokens = [*byte_names(), "zq", *special]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([normal] * 257 + [control] * len(special))
    writer.add_token_merges(["z q"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(True)
    writer.add_chat_template(TEMPLATE)

    def add(name, *shape, scale=0.3):
        writer.add_tensor(name, (rng.standard_normal(shape) * scale).astype(np.float32))

    add("token_embd.weight", len(tokens), WIDTH, scale=1.0)
    add("output.weight", len(tokens), WIDTH, scale=0.5)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, dtype=np.float32))
    for layer in range(LAYERS):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(WIDTH, dtype=np.float32))
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            add(f"blk.{layer}.{part}.weight", WIDTH, WIDTH)
        add(f"blk.{layer}.ffn_gate.weight", FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_up.weight", FORWARD, WIDTH)
        add(f"blk.{layer}.ffn_down.weight", WIDTH, FORWARD)
    finish(writer)


def write_adapter(path, seed, width=WIDTH):
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for layer in range(LAYERS):
        for part in ("attn_q", "attn_v"):
            name = f"blk.{layer}.{part}.weight"
            a = rng.standard_normal((RANK, width)).astype(np.float32) * 0.3
            b = rng.standard_normal((width, RANK)).astype(np.float32) * 0.3
            writer.add_tensor(f"{name}.lora_a", a)
            writer.add_tensor(f"{name}.lora_b", b)
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    write_base(folder / "tiny.gguf")
    write_adapter(folder / "first.gguf", seed=11)
    write_adapter(folder / "second.gguf", seed=12)
    write_adapter(folder / "other-base.gguf", seed=13, width=WIDTH * 2)
