"""The arithmetic of one optimizer step and of an evaluation."""

import inspect
import math
from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, NamedTuple, Sequence, Tuple

from .batches import IGNORED, Batch, Pack, Schedule, collate, in_batches
from .settings import TrainSettings


def learning_rate(step: int, schedule: Schedule, settings: TrainSettings) -> float:
    """Of the step counted from 0; a function, so that a resumed run needs no scheduler state."""
    warmup, total = schedule.warmup_steps, schedule.total_steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, total - warmup)
    if settings.scheduler == "linear":
        return settings.learning_rate * (1 - done)
    if settings.scheduler == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate


def make_optimizer(model: Any, settings: TrainSettings) -> Any:
    """An AdamW over what is trainable."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    decay = settings.weight_decay
    if settings.optimizer == "adamw":
        import torch

        return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=decay)
    import bitsandbytes

    paged = settings.optimizer == "paged_adamw_8bit"
    kind = bitsandbytes.optim.PagedAdamW8bit if paged else bitsandbytes.optim.AdamW8bit
    return kind(parameters, lr=settings.learning_rate, weight_decay=decay)


class StepResult(NamedTuple):
    loss: float
    grad_norm: float
    supervised: int
    tokens: int


class Stepper:
    """Runs batches through an adapted model."""

    def __init__(self, model: Any, settings: TrainSettings, device: str, pad: int) -> None:
        self.model = model
        self._settings = settings
        self._device = device
        self._pad = pad
        forward = inspect.signature(model.get_base_model().forward).parameters
        self._keeps_logits = "logits_to_keep" in forward

    def collated(self, batches: Sequence[Sequence[Pack]]) -> List[Batch]:
        packing = self._settings.packing
        return [collate(batch, self._pad, packing) for batch in batches]

    def gradients(self, batches: Sequence[Sequence[Pack]], check: Callable[[], None]) -> StepResult:
        """Adds the gradients of a step: the mean loss over all its learned tokens, whatever batch
        they stand in. ``check`` runs before each batch and may raise."""
        import torch

        ready = self.collated(batches)
        supervised = sum(batch.supervised for batch in ready)
        self.model.train()
        total = 0.0
        with neftune(self.model, self._settings.neftune_alpha):
            for batch in ready:
                check()
                loss = self.loss_sum(batch)[0] / supervised
                loss.backward()
                total += float(loss.detach())
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self._settings.max_grad_norm))
        return StepResult(total, norm, supervised, sum(batch.tokens for batch in ready))

    def loss_sum(self, batch: Batch) -> Tuple[Any, int]:
        """Summed cross-entropy of the learned tokens, and, where no gradient is wanted, how many of
        them were predicted right.

        Logits are computed only where some row learns, which is most of their memory.
        """
        import torch
        from torch.nn.functional import cross_entropy

        labels = batch.labels.to(self._device)
        columns = (batch.labels != IGNORED).any(dim=0).nonzero()[:, 0].to(self._device)
        inputs = {"input_ids": batch.input_ids.to(self._device)}
        if batch.attention_mask is not None:
            inputs["attention_mask"] = batch.attention_mask.to(self._device)
        inputs["position_ids"] = batch.position_ids.to(self._device)
        if self._keeps_logits:
            inputs["logits_to_keep"] = columns
        logits = self.model(**inputs, use_cache=False).logits
        if not self._keeps_logits:
            logits = logits[:, columns]
        flat = logits.reshape(-1, logits.shape[-1]).float()
        wanted = labels[:, columns].reshape(-1)
        loss = cross_entropy(flat, wanted, ignore_index=IGNORED, reduction="sum")
        if torch.is_grad_enabled():
            return loss, 0
        right = int(((flat.argmax(-1) == wanted) & (wanted != IGNORED)).sum())
        return loss, right

    def evaluate(self, packs: Sequence[Pack], check: Callable[[], None]) -> Tuple[float, float]:
        """Mean loss per learned token, and the share of them that were predicted right."""
        import torch

        self.model.eval()
        loss, right, supervised = 0.0, 0, 0
        with torch.no_grad():
            for rows in in_batches(packs, self._settings.batch_size):
                check()
                batch = collate(rows, self._pad, self._settings.packing)
                summed, correct = self.loss_sum(batch)
                loss += float(summed)
                right += correct
                supervised += batch.supervised
        return loss / supervised, right / supervised


@contextmanager
def neftune(model: Any, alpha: "float | None") -> Iterator[None]:
    """Noise on the embeddings while training (Jain et al. 2023, NEFTune)."""
    if alpha is None:
        yield
        return
    import torch

    def add_noise(_module: Any, _inputs: Any, output: Any) -> Any:
        reach = alpha / math.sqrt(output.shape[-2] * output.shape[-1])
        return output + torch.empty_like(output).uniform_(-reach, reach)

    handle = model.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()
