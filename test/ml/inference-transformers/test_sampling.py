"""Filters and penalties, against those of transformers where it has them."""

import math
from typing import Any, Dict, List

import pytest


def sampler(prompt: Any = (), **fields: Any) -> Any:
    from inference_transformers.fields import Parameters
    from inference_transformers.sampling import Sampler

    return Sampler(Parameters(**fields), list(prompt), None)


def chances(logits: Any, draws: int = 4000, **fields: Any) -> List[float]:
    """How often each token is drawn."""
    from inference_transformers.sampling import choose

    row = sampler(seed=1, **fields)
    counts = [0] * logits.shape[-1]
    for _ in range(draws // 200):
        rows = [row] * 200
        for token in choose(logits.expand(200, -1), rows)[0]:
            counts[token] += 1
    return [count / draws for count in counts]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"temperature": 0.5},
        {"top_k": 3},
        {"top_p": 0.7},
        {"min_p": 0.2},
        {"top_k": 4, "top_p": 0.8, "min_p": 0.1, "temperature": 1.7},
    ],
)
def test_draws_follow_the_distribution_that_transformers_warpers_make(
    fields: Dict[str, float],
) -> None:
    import torch
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    torch.manual_seed(2)
    logits = torch.randn(1, 12) * 1.5
    expected = logits
    if "top_k" in fields:
        expected = TopKLogitsWarper(int(fields["top_k"]))(None, expected)
    if "top_p" in fields:
        expected = TopPLogitsWarper(fields["top_p"])(None, expected)
    if "min_p" in fields:
        expected = MinPLogitsWarper(fields["min_p"])(None, expected)
    if "temperature" in fields:
        expected = TemperatureLogitsWarper(fields["temperature"])(None, expected)
    wanted = expected.softmax(-1)[0].tolist()
    drawn = chances(logits, **fields)
    for chance, share in zip(wanted, drawn):
        assert (chance == 0) == (share == 0) or chance < 0.003
        assert share == pytest.approx(chance, abs=4 * math.sqrt(chance / 4000) + 1e-9)


def test_penalties_change_logits_as_defined() -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = torch.tensor([1.0, -1.0, 2.0, 0.5])
    row = sampler(prompt=[0, 1], repetition_penalty=2.0)
    expected = RepetitionPenaltyLogitsProcessor(2.0)(torch.tensor([[0, 1]]), logits.unsqueeze(0))
    assert torch.allclose(row.adjust(logits), expected[0])
    row = sampler(prompt=[0, 1], frequency_penalty=0.5, presence_penalty=0.25)
    assert torch.equal(row.adjust(logits), logits)
    for token in (2, 2, 3):
        row.chosen(token)
    assert row.adjust(logits).tolist() == [1.0, -1.0, 2.0 - 1.0 - 0.25, 0.5 - 0.5 - 0.25]


def test_a_rows_choice_does_not_depend_on_the_other_rows() -> None:
    import torch
    from inference_transformers.sampling import choose

    torch.manual_seed(3)
    logits = torch.randn(6, 50)
    kinds: List[Dict[str, Any]] = [
        {"seed": 1},
        {"seed": 1, "top_p": 0.9},
        {"temperature": 0},
        {"seed": 2, "top_k": 5, "repetition_penalty": 1.5},
        {"seed": 3, "temperature": 2.0, "frequency_penalty": 1.0},
        {"seed": 4, "min_p": 0.05},
    ]
    alone = [choose(logits[i : i + 1], [sampler(**kind)])[0][0] for i, kind in enumerate(kinds)]
    together = choose(logits, [sampler(**kind) for kind in kinds])[0]
    assert alone == together


def test_a_seed_is_drawn_where_none_is_given_and_repeats_the_text() -> None:
    import torch
    from inference_transformers.sampling import choose

    logits = torch.randn(1, 1000)
    first = sampler()
    again = sampler(seed=first.seed)
    drawn = [choose(logits, [first])[0] for _ in range(20)]
    assert drawn == [choose(logits, [again])[0] for _ in range(20)]
    assert sampler(temperature=0).seed is None
