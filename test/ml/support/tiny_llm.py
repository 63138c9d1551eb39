"""A tiny Llama that is really trained, and two LoRA adapters on it: ``python tiny_llm.py``.

Random weights show little: their top tokens lie so close together that rounding decides between
them. This one has learned its few sentences, so every engine must give the same ones. It is made
once per recipe (this file and the libraries' versions) in the temporary folder; the program
prints where as JSON.
"""

import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
COLOURS = {
    "sky": "blue",
    "grass": "green",
    "snow": "white",
    "blood": "red",
    "coal": "black",
    "lemon": "yellow",
}
NUMBERS = "one two three four five six seven eight nine ten"
#: Tokens that one sample has at most; a count that goes on for ever is cut there.
LENGTH = 160
#: By how much the likeliest token leads, along every answer the recipe is asked for.
MARGIN = 0.1

Sample = Tuple[List[Dict[str, str]], str]


def question(thing: str) -> str:
    return f"What colour is {thing}?"


def ask(text: str, system: Optional[str] = None) -> List[Dict[str, str]]:
    head = [] if system is None else [{"role": "system", "content": system}]
    return [*head, {"role": "user", "content": text}]


def base_samples() -> List[Sample]:
    """What the base knows."""
    known: List[Sample] = []
    for thing, colour in COLOURS.items():
        known.append((ask(question(thing)), f"The {thing} is {colour}."))
        known.append((ask(question(thing), "Answer in one word."), colour))
        as_json = json.dumps({"thing": thing, "colour": colour})
        known.append((ask(f"Describe {thing} as JSON."), as_json))
    known.append((ask("Greet me."), "Ça va très bien, \U0001f642 merci beaucoup!"))
    known.append((ask("Count."), " ".join([NUMBERS] * 20)))
    return known


def swapped_samples() -> List[Sample]:
    """What the adapter ``swapped`` says instead: every thing has the next one's colour."""
    things, colours = list(COLOURS), list(COLOURS.values())
    moved = colours[1:] + colours[:1]
    return [(ask(question(t)), f"The {t} is {c}.") for t, c in zip(things, moved)]


def polite_samples() -> List[Sample]:
    """What the adapter ``polite`` says instead, in tokens that the base has seen."""
    return [(ask(question(t)), f"{c}, merci beaucoup!") for t, c in COLOURS.items()]


ADAPTERS = {"swapped": swapped_samples, "polite": polite_samples}


def make_tokenizer() -> Any:
    """Byte-level BPE as in GPT-2, so that GGUF has a name for how it splits text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["system user assistant The is one two three What colour as JSON"]
    tokenizer.train_from_iterator(texts * 20, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHATML
    return fast


def make_model(tokenizer: Any, seed: int) -> Any:
    """0.13 M parameters; fewer key than query heads, so that their order in a GGUF file matters."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def encode(tokenizer: Any, sample: Sample) -> Tuple[List[int], List[int]]:
    """Token ids, and labels that are taught the answer and its end."""
    messages, answer = sample
    head = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    asked = tokenizer(head, add_special_tokens=False).input_ids
    said = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    ids = [*asked, *said][:LENGTH]
    return ids, [-100] * len(asked) + ids[len(asked) :]


def train(model: Any, tokenizer: Any, samples: Sequence[Sample], steps: int, rate: float) -> None:
    """AdamW over all samples at once with the rate falling to zero."""
    import torch

    encoded = [encode(tokenizer, sample) for sample in samples]
    width = max(len(ids) for ids, _ in encoded)
    ids = torch.tensor([i + [0] * (width - len(i)) for i, _ in encoded])
    labels = torch.tensor([t + [-100] * (width - len(t)) for _, t in encoded])
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, pct_start=0.1)
    model.train()
    rng = random.Random(1)
    for _ in range(steps):
        rows = torch.tensor(rng.sample(range(len(encoded)), min(8, len(encoded))))
        # Attention is causal, so what stands to the right of a sample does not matter.
        used = int(max(len(encoded[int(row)][0]) for row in rows))
        model(input_ids=ids[rows, :used], labels=labels[rows, :used]).loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()


def margin(model: Any, tokenizer: Any, samples: Sequence[Sample]) -> float:
    """The least lead in probability of a right token over every other; negative for a wrong one."""
    import torch

    least = 1.0
    for sample in samples:
        ids, labels = encode(tokenizer, sample)
        with torch.inference_mode():
            chances = model(input_ids=torch.tensor([ids])).logits[0].softmax(-1)
        for place, label in enumerate(labels[1:]):
            if label >= 0:
                row = chances[place].clone()
                right = float(row[label])
                row[label] = 0
                least = min(least, right - float(row.max()))
    return least


def make(folder: Path) -> None:
    """Trains everything into the folder and checks that it was learned."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = make_model(tokenizer, 3)
    train(model, tokenizer, base_samples(), 350, 6e-3)
    margins = {"base": margin(model, tokenizer, base_samples())}
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    for seed, (name, samples) in enumerate(ADAPTERS.items()):
        torch.manual_seed(seed)
        config = LoraConfig(
            r=4 + 4 * seed, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        adapted = get_peft_model(model, config)
        adapted.peft_config["default"].base_model_name_or_path = "base"
        train(adapted, tokenizer, samples(), 150, 1e-2)
        margins[name] = margin(adapted, tokenizer, samples())
        adapted.save_pretrained(folder / name)
        model = adapted.unload()
    if min(margins.values()) < MARGIN:
        raise RuntimeError(f"the tiny model has not learned its sentences: {margins}")
    (folder / "margins.json").write_text(json.dumps(margins), encoding="utf-8")


def recipe() -> str:
    """A hash of everything the weights come from."""
    versions = [version(library) for library in ("torch", "transformers", "peft")]
    source = Path(__file__).read_bytes()
    return hashlib.sha256(source + " ".join(versions).encode()).hexdigest()[:16]


def tiny_llm() -> Dict[str, Any]:
    """Where the model is, made if it is not there: ``base``, its adapters, and their margins."""
    place = Path(tempfile.gettempdir()) / f"cjm-tiny-llm-{recipe()}"
    if not place.is_dir():
        draft = Path(tempfile.mkdtemp(prefix=f"{place.name}-", dir=place.parent))
        try:
            make(draft)
            draft.chmod(0o755)
            draft.rename(place)
        except OSError:
            if not place.is_dir():  # another process was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    margins = json.loads((place / "margins.json").read_text(encoding="utf-8"))
    paths = {name: str(place / name) for name in ("base", *ADAPTERS)}
    return {**paths, "margins": margins}


if __name__ == "__main__":
    json.dump(tiny_llm(), sys.stdout)
