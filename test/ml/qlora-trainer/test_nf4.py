"""The installed bitsandbytes computes NF4 as it was recorded, to the bit."""

import json
from pathlib import Path
from typing import Any, Dict

import pytest

VECTORS = json.loads((Path(__file__).parents[2] / "fixtures/qlora-trainer/nf4.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["id"])
def test_quantises_and_restores_as_recorded(case: Dict[str, Any]) -> None:
    import torch
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    dtype = getattr(torch, case["dtype"])
    values = torch.tensor(case["input"], dtype=torch.float32).to(dtype).reshape(case["shape"])
    packed, state = quantize_4bit(
        values,
        blocksize=case["blocksize"],
        quant_type="nf4",
        compress_statistics="nested" in case,
    )
    assert packed.flatten().tolist() == case["packed_u8"]
    if "nested" in case:
        nested = case["nested"]
        assert state.absmax.tolist() == nested["absmax_q_u8"]
        assert state.offset.item() == nested["offset"]
        assert state.state2.absmax.tolist() == nested["absmax2"]
    else:
        assert state.absmax.tolist() == case["absmax"]
    # The CPU kernel restores rows that are no multiple of the block wrongly (the trainer refuses
    # such models), so their values are restored as one row.
    if case["shape"][-1] % case["blocksize"]:
        state.shape = torch.Size([values.numel()])
    restored = dequantize_4bit(packed, state)
    assert restored.dtype == dtype
    assert restored.float().flatten().tolist() == case["dequant"]


def test_the_code_is_the_recorded_one() -> None:
    from bitsandbytes.functional import get_4bit_type

    assert get_4bit_type("nf4", device="cpu").tolist() == VECTORS["meta"]["nf4_code"]


def test_the_map_of_the_nested_scales_is_the_recorded_one() -> None:
    from bitsandbytes.functional import create_dynamic_map

    assert create_dynamic_map().tolist() == VECTORS["meta"]["dynamic_map_signed_256"]
