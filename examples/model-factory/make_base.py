"""Trains the base model of this example from nothing: ``python make_base.py <folder>``.

A Llama of 0.3 million parameters and its tokenizer, made once and kept in ``<folder>/<hash>``, the
hash being that of everything the model is made of (this file, the dialects, the seed). The last line
printed is the path of the model. On one core of a server it takes two minutes; torch,
transformers and tokenizers are those of the trainer's environment.

The base reads programs with words above them that say, step by step, what the program does; now and
then there is a word of a dialect among them, which says nothing. So it writes arithmetic functions
told in plain words, and for a dialect it writes a valid function that does something else.
"""

import argparse
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Iterator, List, Tuple

import dialect

SHAPE = {
    "hidden_size": 96,
    "intermediate_size": 288,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": True,
    # The usual 0.02 is for models many times as wide; here attention would hardly begin to learn.
    "initializer_range": 0.1,
}
STEPS = 1000
BATCH = 48
PEAK_RATE = 4e-3
WARM_UP = 50
#: Where the learning rate begins to fall, as a share of the steps.
DECAY_FROM = 0.6
#: How often a list is the subject; lists are the harder half.
LISTS = 0.55
#: Share of the steps that are told in a word of a dialect, which says nothing about them.
FOREIGN = 0.2
#: Share of unseen plain tasks that the base must answer to the letter.
LEAST_EXACT = 0.6
SPECIAL = ["<pad>", "<s>", "</s>"]


def recipe(seed: int) -> str:
    """Hash of all that decides what the base becomes."""
    here = Path(__file__)
    parts = [here.read_bytes(), Path(dialect.__file__).read_bytes(), str(seed).encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def draw(rng: Random) -> Tuple[str, str]:
    family = "lists" if rng.random() < LISTS else "numbers"
    return dialect.plain_row(family, rng, FOREIGN)


def make_tokenizer(rng: Random) -> Any:
    """Byte-level BPE in which every word and every constant is one token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        min_frequency=2,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(("".join(draw(rng)) for _ in range(12_000)), trainer)
    names = dict(zip(("pad_token", "bos_token", "eos_token"), SPECIAL))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def batches(tokenizer: Any, rng: Random) -> Iterator[List[List[int]]]:
    """Rows of similar length together, so that little is padding."""
    pool = 20
    for _ in range(0, STEPS, pool):
        texts = ["".join(draw(rng)) for _ in range(BATCH * pool)]
        rows = [ids + [tokenizer.eos_token_id] for ids in tokenizer(texts).input_ids]
        rows.sort(key=len)
        chunks = [rows[at : at + BATCH] for at in range(0, len(rows), BATCH)]
        rng.shuffle(chunks)
        yield from chunks


def rate_at(step: int) -> float:
    falling = max(0.0, (step / STEPS - DECAY_FROM) / (1 - DECAY_FROM))
    return PEAK_RATE * min(1.0, (step + 1) / WARM_UP) * (1 - 0.95 * falling)


def train(model: Any, tokenizer: Any, rng: Random) -> float:
    """All parameters; the last loss."""
    import torch

    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    began, loss = time.monotonic(), None
    for step, rows in enumerate(batches(tokenizer, rng)):
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step)
        width = max(map(len, rows))
        padded = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows]
        ids = torch.tensor(padded)
        mask = ids != tokenizer.pad_token_id
        loss = model(input_ids=ids, attention_mask=mask, labels=ids.where(mask, -100)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 100 == 0:
            seconds = time.monotonic() - began
            print(f"base: step {step + 1}/{STEPS}, loss {loss.item():.3f}, {seconds:.0f} s", flush=True)
    return float(loss.item())


def exact(model: Any, tokenizer: Any, rng: Random, count: int = 64) -> float:
    """Share of plain tasks whose greedy answer is the solution to the letter."""
    import torch

    rows = [dialect.plain_row(rng.choice(dialect.FAMILIES), rng) for _ in range(count)]
    tokenizer.padding_side = "left"
    asked = tokenizer([prompt for prompt, _ in rows], return_tensors="pt", padding=True)
    with torch.no_grad():
        made = model.generate(
            input_ids=asked.input_ids,
            attention_mask=asked.attention_mask,
            max_new_tokens=80,
            do_sample=False,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    answers = tokenizer.batch_decode(made[:, asked.input_ids.shape[1] :], skip_special_tokens=True)
    return sum(given == wanted for given, (_, wanted) in zip(answers, rows)) / count


def make(folder: Path, seed: int) -> None:
    """Writes the model, its tokenizer, and ``base.json`` with how it was made."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    rng, began = Random(seed), time.monotonic()
    tokenizer = make_tokenizer(rng)
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    special = {name: getattr(tokenizer, name) for name in names}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE, **special))
    loss = train(model, tokenizer, rng)
    share = exact(model.eval(), tokenizer, rng)
    if share < LEAST_EXACT:
        raise SystemExit(f"base: only {share:.0%} of the plain tasks are right; try another --seed")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    card = {
        "parameters": sum(weights.numel() for weights in model.parameters()),
        "steps": STEPS,
        "loss": round(loss, 4),
        "plain_exact": round(share, 3),
        "seconds": round(time.monotonic() - began, 1),
        "seed": seed,
    }
    (folder / "base.json").write_text(json.dumps(card) + "\n", encoding="utf-8")
    print("base: " + ", ".join(f"{key} {value}" for key, value in card.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where bases are kept")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    target = given.folder.resolve() / recipe(given.seed)
    if not (target / "base.json").is_file():
        # Made beside its place: what stands there is whole.
        making = target.with_name(f"{target.name}.{os.getpid()}")
        making.mkdir(parents=True)
        try:
            make(making, given.seed)
            shutil.rmtree(target, ignore_errors=True)
            making.rename(target)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    print(target)


if __name__ == "__main__":
    sys.exit(main())
