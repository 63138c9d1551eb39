"""A tiny Llama and its tokenizer, made here so that no test downloads anything."""

import json
import random
from pathlib import Path
from typing import Any, Dict, List, Sequence

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>"]
LETTERS = "abcdefgh"


def reversed_word(rng: random.Random) -> Dict[str, Any]:
    """One row of the task: spell a word backwards."""
    word = "".join(rng.choice(LETTERS) for _ in range(3))
    return chat(f"reverse {' '.join(word)}", " ".join(reversed(word)))


def chat(question: str, answer: str) -> Dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    }


def task_rows(count: int, seed: int) -> List[Dict[str, Any]]:
    rng = random.Random(seed)
    return [reversed_word(rng) for _ in range(count)]


def write_rows(path: Path, rows: Sequence[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def make_tokenizer(folder: Path, template: str = CHATML, special: Sequence[str] = ()) -> Any:
    """A byte-level BPE tokenizer with the given chat template, saved into the folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=[*SPECIAL, *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["reverse the word user assistant system"] * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[*SPECIAL[4:], *special],
    )
    if template:
        fast.chat_template = template
    fast.save_pretrained(folder)
    return fast


def make_model(folder: Path, template: str = CHATML, seed: int = 0, **shape: Any) -> str:
    """A random Llama of about 0.2 M parameters with a tokenizer; the folder's path."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(folder, template)
    torch.manual_seed(seed)
    measures = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        **shape,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **measures,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)
