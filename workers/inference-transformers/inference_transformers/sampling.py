"""Chooses the next token of every row of a batch, each by its own parameters and its own seed.

A row's choice depends on its own logits, parameters and random numbers only, so a text is the same
whatever else is in the batch.
"""

import random
import secrets
from typing import Any, List, Optional, Sequence, Tuple

from .constraint import Constraint
from .fields import Parameters

#: A logprob: of the chosen token, and ``(token, logprob)`` of the likeliest.
Likely = Tuple[float, List[Tuple[int, float]]]


class Sampler:
    """How one text is continued, and what of it is remembered for penalties."""

    def __init__(
        self, parameters: Parameters, prompt: Sequence[int], constraint: Optional[Constraint]
    ) -> None:
        def given(value: Optional[float], neutral: float) -> float:
            return neutral if value is None else value

        self.temperature = given(parameters.temperature, 1.0)
        self.top_p = given(parameters.top_p, 1.0)
        self.top_k = int(given(parameters.top_k, 0))
        self.min_p = given(parameters.min_p, 0.0)
        self.repetition = given(parameters.repetition_penalty, 1.0)
        self.presence = given(parameters.presence_penalty, 0.0)
        self.frequency = given(parameters.frequency_penalty, 0.0)
        self.logprobs = parameters.logprobs
        self.constraint = constraint
        self.greedy = self.temperature == 0
        #: What repeats this text; None where chance has no part in it.
        self.seed = None if self.greedy else parameters.seed
        if not self.greedy and self.seed is None:
            self.seed = secrets.randbits(32)
        self._random = random.Random(self.seed)
        self._prompt = prompt
        #: Per token of the vocabulary: how often it was generated, and whether it is in the text.
        self._counts: Any = None
        self._seen: Any = None

    @property
    def penalises(self) -> bool:
        return self.repetition != 1 or self.presence != 0 or self.frequency != 0

    @property
    def plain(self) -> bool:
        """True when the likeliest token is chosen and nothing else is asked."""
        untouched = not self.penalises and self.constraint is None
        return self.greedy and untouched and self.logprobs is None

    @property
    def filters(self) -> bool:
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def draw(self) -> float:
        return self._random.random()

    def adjust(self, logits: Any) -> Any:
        """Logits of shape (vocabulary,) after penalties and grammar."""
        import torch

        if self.penalises:
            self._remember(logits)
            if self.repetition != 1:
                factor = torch.where(logits > 0, 1 / self.repetition, self.repetition)
                logits = torch.where(self._seen, logits * factor, logits)
            if self.frequency != 0:
                logits = logits - self.frequency * self._counts
            if self.presence != 0:
                logits = logits - self.presence * (self._counts > 0)
        if self.constraint is not None:
            allowed = self.constraint.allowed(logits.shape[-1], logits.device)
            logits = logits.masked_fill(~allowed, float("-inf"))
        return logits

    def _remember(self, logits: Any) -> None:
        import torch

        if self._counts is None:
            self._counts = torch.zeros_like(logits)
            self._seen = torch.zeros_like(logits, dtype=torch.bool)
            self._seen[torch.tensor(self._prompt, dtype=torch.long, device=logits.device)] = True

    def chosen(self, token: int) -> bool:
        """Takes the token that was chosen; True when the grammar lets nothing follow it."""
        if self._counts is not None:
            self._counts[token] += 1
            self._seen[token] = True
        return self.constraint is not None and self.constraint.accept(token)


def choose(logits: Any, rows: Sequence[Sampler]) -> Tuple[List[int], List[Optional[Likely]]]:
    """The next token of each row of ``logits`` (rows, vocabulary), and what was likely there."""
    if all(row.plain for row in rows):
        return logits.argmax(-1).tolist(), [None] * len(rows)
    import torch

    logits = logits.float()
    adjusted = logits
    touched = [i for i, row in enumerate(rows) if row.penalises or row.constraint is not None]
    if touched:
        adjusted = logits.clone()
        for place in touched:
            adjusted[place] = rows[place].adjust(logits[place])
    tokens = adjusted.argmax(-1)
    for filtered in (False, True):
        some = [i for i, r in enumerate(rows) if not r.greedy and r.filters == filtered]
        if some:
            places = torch.tensor(some, device=logits.device)
            tokens[places] = _sample(adjusted[places], [rows[i] for i in some])
    chosen: List[int] = tokens.tolist()
    return chosen, _likely(logits, rows, chosen)


def _sample(logits: Any, rows: Sequence[Sampler]) -> Any:
    """One draw per row, by inverting the cumulated distribution."""
    import torch

    def column(values: List[float]) -> Any:
        return torch.tensor(values, device=logits.device, dtype=torch.float64).unsqueeze(1)

    order = None
    if rows[0].filters:
        logits, order = logits.sort(dim=-1, descending=True, stable=True)
        logits = _filter(logits, rows, column)
    temperature = column([row.temperature for row in rows])
    # In double precision: a sum over a large vocabulary must not lose its smallest terms.
    cumulated = (logits.double() / temperature).softmax(-1).cumsum(-1)
    drawn = column([row.draw() for row in rows]) * cumulated[:, -1:]
    place = torch.searchsorted(cumulated, drawn, right=True).clamp(max=logits.shape[-1] - 1)
    return (place if order is None else order.gather(-1, place)).squeeze(1)


def _filter(logits: Any, rows: Sequence[Sampler], column: Any) -> Any:
    """Applies top_k, top_p and min_p, in this order, to logits sorted from the likeliest."""
    import torch

    width = logits.shape[-1]
    rank = torch.arange(width, device=logits.device)
    kept = rank < column([row.top_k or width for row in rows])
    chances = logits.double().masked_fill(~kept, float("-inf")).softmax(-1)
    # A token is kept while those before it have not reached p.
    kept &= chances.cumsum(-1) - chances < column([row.top_p for row in rows])
    kept &= chances >= column([row.min_p for row in rows]) * chances[:, :1]
    kept[:, 0] = True
    return logits.masked_fill(~kept, float("-inf"))


def _likely(logits: Any, rows: Sequence[Sampler], chosen: Sequence[int]) -> List[Optional[Likely]]:
    likely: List[Optional[Likely]] = [None] * len(rows)
    for place, row in enumerate(rows):
        if row.logprobs is not None:
            logprobs = logits[place].log_softmax(-1)
            best = logprobs.topk(min(row.logprobs, logprobs.numel()))
            pairs = list(zip(best.indices.tolist(), best.values.tolist()))
            likely[place] = (float(logprobs[chosen[place]]), pairs)
    return likely
