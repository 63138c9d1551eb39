"""Asking a model, and merging an adapter into its base."""

import math
from pathlib import Path
from typing import Any, List, Optional, Tuple

from cjm_worker import CapabilityInputError, DirRef

from .dataset import Row, read_rows
from .masks import Encoder
from .models import (
    ADAPTER_CONFIG,
    CARD_NAME,
    WEIGHTS_NAME,
    check_adapted_names,
    fingerprint,
    load_base,
    load_tokenizer,
    model_folder,
)
from .prepare import Prepared
from .reports import Answer, EvalReport, MergeReport
from .settings import TrainSettings
from .steps import Stepper

_SHOWN_ANSWERS = 20


def with_adapter(model: Any, adapter: str) -> Any:
    """The base with an adapter of its own shapes, as plain peft loads it."""
    from peft import PeftModel

    folder = Path(adapter)
    if not (folder / ADAPTER_CONFIG).is_file() or not (folder / WEIGHTS_NAME).is_file():
        raise CapabilityInputError(f"no adapter at {adapter}", fields_invalid=["adapter"])
    check_adapted_names(folder / WEIGHTS_NAME)
    try:
        return PeftModel.from_pretrained(model, str(folder))
    except (RuntimeError, ValueError) as error:
        raise CapabilityInputError(
            f"{adapter} does not fit the model: {error}", fields_invalid=["adapter"]
        ) from error


def check_base(adapter: str, base: str) -> None:
    """Raises CapabilityInputError when an adapter's card names another base."""
    import json

    card = Path(adapter) / CARD_NAME
    if not card.is_file():
        return
    named = json.loads(card.read_text(encoding="utf-8")).get("model_sha256")
    if named != base:
        raise CapabilityInputError(
            f"the adapter was trained on another base, {named}; this one is {base}",
            fields_invalid=["adapter"],
        )


def evaluate(
    prepared: Prepared, base: Any, adapter: Optional[str], answer_tokens: Optional[int]
) -> EvalReport:
    """Loss and accuracy over the learned tokens; answers are greedy."""
    if adapter is not None:
        check_base(adapter, prepared.identity.model_sha256)
        base = with_adapter(base, adapter)
    else:
        base = _Bare(base)
    pad = int(prepared.tokenizer.pad_token_id)
    stepper = Stepper(base, prepared.settings, prepared.device, pad)
    loss, accuracy = stepper.evaluate(prepared.packs, lambda: None)
    answers: List[Answer] = []
    if answer_tokens is not None:
        encoder = Encoder(
            prepared.tokenizer, prepared.settings.chat_template, prepared.settings.loss_on
        )
        rows, _ = read_rows(prepared.order.dataset)
        answers = [_ask(base, encoder, prepared, (row, answer_tokens)) for row in rows]
    right = sum(item.given.strip() == item.expected.strip() for item in answers)
    return EvalReport(
        rows=len(prepared.fitted.samples),
        supervised_tokens=sum(sample.supervised for sample in prepared.fitted.samples),
        loss=loss,
        perplexity=math.exp(min(loss, 700.0)),
        token_accuracy=accuracy,
        exact_match=right / len(answers) if answers else None,
        answers=answers[:_SHOWN_ANSWERS],
    )


class _Bare:
    """A base without an adapter, under the names an adapted one has."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def get_base_model(self) -> Any:
        return self._model

    def __call__(self, **inputs: Any) -> Any:
        return self._model(**inputs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def _ask(base: Any, encoder: Encoder, prepared: Prepared, wish: Tuple[Row, int]) -> Answer:
    import torch

    row, limit = wish
    ids, expected = encoder.prompt_of(row)
    tokenizer = prepared.tokenizer
    inputs = torch.tensor([ids or [tokenizer.bos_token_id or 0]], device=prepared.device)
    ends = {tokenizer.eos_token_id, *tokenizer.all_special_ids} - {None}
    with torch.no_grad():
        produced = base.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            max_new_tokens=limit,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(ends),
            pad_token_id=tokenizer.pad_token_id,
        )
    given = tokenizer.decode(produced[0, inputs.shape[1] :], skip_special_tokens=True)
    return Answer(row.line, expected, given)


def merge(places: Tuple[str, str], cache: Path, dtype: str, output: Path) -> MergeReport:
    """Adds A·B into the base's own weights, checks the sum on a probe, and saves a whole model."""
    import torch

    model_path, adapter = places
    folder = model_folder(model_path)
    check_base(adapter, fingerprint(folder, cache))
    # Added in float32 and rounded once, when saved.
    settings = TrainSettings(quantization="none", compute_dtype="float32")
    adapted = with_adapter(load_base(folder, settings, "cpu"), adapter).eval()
    size = adapted.get_input_embeddings().num_embeddings
    probe = torch.arange(16)[None] % size
    with torch.no_grad():
        before = adapted(input_ids=probe).logits
        layers = sum(hasattr(module, "lora_A") for module in adapted.modules())
        merged = adapted.merge_and_unload(safe_merge=True)
        after = merged(input_ids=probe).logits
    target = output / "model"
    merged.to(getattr(torch, dtype)).save_pretrained(target)
    load_tokenizer(folder).save_pretrained(target)
    difference = float((before - after).abs().max())
    return MergeReport(DirRef.of(target), layers, difference)
