"""Tokens per second beside a plain script of transformers and peft, in one run.

``python bench/trainer.py`` with the Python of the trainer's environment. Both train the same
tiny model on the same rows, order and settings, in turns, so that a busy machine slows both.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List

ROOT = Path(__file__).parents[1]
for place in ("python/src", "workers/qlora-trainer", "test/ml/qlora-trainer"):
    sys.path.insert(0, str(ROOT / place))
os.environ["HF_HUB_OFFLINE"] = "1"

from tiny import chat, make_model, write_rows  # noqa: E402

STEPS, ROUNDS, BATCH = 20, 7, 4
SETTINGS: Dict[str, Any] = {
    "rank": 16,
    "alpha": 32,
    "dropout": 0.0,
    "batch_size": BATCH,
    "accumulation": 1,
    "learning_rate": 2e-4,
    "max_steps": STEPS,
    "max_length": 256,
    "checkpoint_every": None,
    "gradient_checkpointing": False,
}


def plain(model: str, batches: List[Any]) -> float:
    """What a careful person writes without a framework; seconds of its steps."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )
    base = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=quantization, dtype=torch.float32, device_map={"": "cpu"}
    )
    base = prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)
    config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = get_peft_model(base, config)
    adapted.train()
    parameters = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=2e-4, weight_decay=0.0)
    began = time.perf_counter()
    for batch in batches:
        loss = adapted(
            input_ids=batch["ids"], attention_mask=batch["mask"], labels=batch["labels"]
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
    return time.perf_counter() - began


def ours(model: str, data: str) -> Dict[str, Any]:
    from cjm_worker.testing import LocalWorker
    from qlora_trainer.capability import QloraTrainer

    trainer = LocalWorker(QloraTrainer, {"device": "cpu", "threads": 1})
    done = trainer.run("train", model=model, dataset=data, settings=SETTINGS)
    rows = Path(done["metrics"]["data"]["path"]).read_text().splitlines()
    tokens = sum(json.loads(row)["tokens"] for row in rows)
    rate = done["supervised_tokens_per_second"]
    return {"seconds": done["supervised_tokens"] / rate, "tokens": tokens}


def plain_batches(model: str, data: str) -> List[Any]:
    """The trainer's own batches, as tensors a plain script would make."""
    import torch
    from qlora_trainer.batches import IGNORED, make_packs, step_batches
    from qlora_trainer.dataset import read_rows
    from qlora_trainer.masks import Encoder
    from qlora_trainer.models import load_tokenizer
    from qlora_trainer.settings import settings_from
    from torch.nn.utils.rnn import pad_sequence

    encoder = Encoder(load_tokenizer(Path(model)), None, "assistant")
    packs = make_packs([encoder.encode(row) for row in read_rows(data)[0]], settings_from(SETTINGS))
    batches = []
    for step in range(STEPS):
        samples = [pack[0] for pack in step_batches(packs, settings_from(SETTINGS), step)[0]]
        ids = [torch.tensor(s.ids) for s in samples]
        labels = [
            torch.where(torch.tensor(s.taught), torch.tensor(s.ids), IGNORED) for s in samples
        ]
        mask = pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        padded = pad_sequence(ids, batch_first=True)
        shown = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        batches.append({"ids": padded, "mask": mask, "labels": shown})
    return batches


def main() -> None:
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CAPABILITY_DATA_DIR"] = str(folder / "data")
        shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4}
        model = make_model(folder / "model", **shape)
        rows = [chat(f"question {i} " + "a b c " * (i % 9), "d e f " * 8) for i in range(80)]
        data = write_rows(folder / "rows.jsonl", rows)
        batches = plain_batches(model, data)
        ours(model, data)
        plain(model, batches)
        ratios, rates = [], []
        for _ in range(ROUNDS):
            theirs, mine = plain(model, batches), ours(model, data)
            ratios.append(theirs / mine["seconds"])
            rates.append((mine["tokens"] / mine["seconds"], mine["tokens"] / theirs))
    print(f"tokens/s, ours and plain, by round: {[(round(a), round(b)) for a, b in rates]}")
    print(f"ours/plain, median of {ROUNDS}: {statistics.median(ratios):.3f}")


if __name__ == "__main__":
    main()
