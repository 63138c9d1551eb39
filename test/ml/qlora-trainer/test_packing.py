"""Samples that share a row know nothing of each other."""

import random
from typing import Any, Dict, List

from qlora_trainer.batches import IGNORED, collate, epoch_order, make_packs, step_batches
from qlora_trainer.masks import Sample
from qlora_trainer.settings import TrainSettings
from tiny import make_model


def samples(count: int, seed: int = 0, longest: int = 40) -> List[Sample]:
    rng = random.Random(seed)
    made = []
    for line in range(1, count + 1):
        length = rng.randint(5, longest)
        ids = [rng.randrange(6, 280) for _ in range(length)]
        made.append(Sample(line, ids, [index >= length // 2 for index in range(length)]))
    return made


def logits_of(model: Any, batch: Any) -> Any:
    return model(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
    ).logits


def test_rows_are_full_and_hold_every_sample_once() -> None:
    everything = samples(400, longest=500)
    packs = make_packs(everything, TrainSettings(packing=True, max_length=2048))
    assert sorted(s.line for pack in packs for s in pack) == list(range(1, 401))
    lengths = [sum(len(s.ids) for s in pack) for pack in packs]
    assert max(lengths) <= 2048
    assert sum(lengths) / (len(packs) * 2048) >= 0.95


def test_no_token_attends_across_samples(tmp_path: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(make_model(tmp_path)).eval()
    first, second, third = samples(3)
    batch = collate([[first, second, third]], 0, packing=True)
    embedded = model.get_input_embeddings()(batch.input_ids).detach().requires_grad_()
    logits = model(
        inputs_embeds=embedded,
        attention_mask=batch.attention_mask,
        position_ids=batch.position_ids,
    ).logits
    start, end = len(first.ids), len(first.ids) + len(second.ids)
    logits[0, start:end].sum().backward()
    reached = embedded.grad[0].abs().sum(-1)
    # Exactly zero: not a small influence, none.
    assert float(reached[:start].sum()) == float(reached[end:].sum()) == 0.0
    assert float(reached[start:end].min()) > 0.0
    changed = Sample(1, [7] * len(first.ids), first.taught)
    other = collate([[changed, second, third]], 0, packing=True)
    with torch.no_grad():
        before, after = logits_of(model, batch), logits_of(model, other)
    assert torch.equal(before[0, start:], after[0, start:])


def test_packing_gives_the_loss_of_single_rows(tmp_path: Any) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from qlora_trainer.steps import Stepper
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(make_model(tmp_path))
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"])).double()
    rows = samples(7)
    losses: Dict[bool, float] = {}
    for packing in (False, True):
        settings = TrainSettings(packing=packing, max_length=128, batch_size=3)
        stepper = Stepper(model, settings, "cpu", 0)
        losses[packing], _ = stepper.evaluate(make_packs(rows, settings), lambda: None)
    assert abs(losses[True] - losses[False]) < 1e-6
    assert torch.is_grad_enabled()


def test_labels_never_cross_a_sample() -> None:
    first, second = samples(2)
    batch = collate([[first, second]], 0, packing=True)
    # The last token of a sample predicts nothing.
    assert batch.labels[0, len(first.ids) - 1] == IGNORED
    assert batch.supervised == first.supervised + second.supervised
    assert batch.position_ids[0, len(first.ids)] == 0


def test_an_epoch_shows_every_row_once_in_an_order_of_its_own() -> None:
    settings = TrainSettings(batch_size=2, accumulation=3)
    packs = make_packs(samples(11), settings)
    for epoch in (0, 1):
        lines = [
            sample.line
            for step in (0, 1)
            for batch in step_batches(packs, settings, epoch * 2 + step)
            for pack in batch
            for sample in pack
        ]
        assert sorted(lines) == list(range(1, 12))
    assert epoch_order(11, 42, 0) != epoch_order(11, 42, 1)
