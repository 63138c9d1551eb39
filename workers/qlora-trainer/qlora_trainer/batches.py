"""From samples to rows of tokens: over-length rows, packing, order, and batches."""

from dataclasses import dataclass
from typing import Any, Iterator, List, NamedTuple, Sequence

from .masks import Sample
from .settings import TrainSettings

IGNORED = -100


@dataclass(frozen=True)
class Fitted:
    """The samples that are trained on, and what became of the others."""

    samples: List[Sample]
    dropped_lines: List[int]
    truncated_lines: List[int]
    #: Learned tokens that the dropped and truncated rows lost.
    lost_tokens: int


def fit_length(samples: Sequence[Sample], settings: TrainSettings) -> Fitted:
    """Applies ``over_length``; with ``error`` the caller refuses too long rows beforehand."""
    kept: List[Sample] = []
    dropped: List[int] = []
    truncated: List[int] = []
    lost = 0
    for sample in samples:
        if len(sample.ids) <= settings.max_length:
            kept.append(sample)
            continue
        limit = settings.max_length if settings.over_length == "truncate" else 0
        cut = Sample(sample.line, sample.ids[:limit], sample.taught[:limit])
        lost += sample.supervised - cut.supervised
        if cut.supervised == 0:
            dropped.append(sample.line)
        else:
            truncated.append(sample.line)
            kept.append(cut)
    return Fitted(kept, dropped, truncated, lost)


#: Samples that share one row.
Pack = List[Sample]


def make_packs(samples: Sequence[Sample], settings: TrainSettings) -> List[Pack]:
    """Rows of at most ``max_length`` tokens; one sample each unless ``packing``.

    Best-fit decreasing (Johnson 1974): the longest sample first, into the fullest row it fits.
    """
    if not settings.packing:
        return [[sample] for sample in samples]
    room: List[List[Pack]] = [[] for _ in range(settings.max_length + 1)]
    packs: List[Pack] = []
    for sample in sorted(samples, key=lambda item: (-len(item.ids), item.line)):
        length = len(sample.ids)
        free = next((n for n in range(length, settings.max_length + 1) if room[n]), None)
        if free is None:
            pack: Pack = []
            packs.append(pack)
            free = settings.max_length
        else:
            pack = room[free].pop()
        pack.append(sample)
        room[free - length].append(pack)
    return packs


class Schedule(NamedTuple):
    """How many steps a run has."""

    batches_per_epoch: int
    steps_per_epoch: int
    total_steps: int
    warmup_steps: int


def make_schedule(packs: int, settings: TrainSettings) -> Schedule:
    """The last step of an epoch may have fewer batches; it is a step all the same."""
    batches = -(-packs // settings.batch_size)
    per_epoch = -(-batches // settings.accumulation)
    total = settings.max_steps or per_epoch * settings.epochs
    # Rounded up: with a ratio above 0 a short run warms up too.
    warmup = min(total, int(-(-total * settings.warmup_ratio // 1)))
    return Schedule(batches, per_epoch, total, warmup)


def step_batches(packs: Sequence[Pack], settings: TrainSettings, step: int) -> List[List[Pack]]:
    """The batches of one optimizer step, counted from 0: a function of the seed, so that a resumed
    run continues where the cursor stands without replaying anything."""
    schedule = make_schedule(len(packs), settings)
    epoch, position = divmod(step, schedule.steps_per_epoch)
    order = epoch_order(len(packs), settings.seed, epoch)
    size = settings.batch_size
    first = position * settings.accumulation
    last = min(first + settings.accumulation, schedule.batches_per_epoch)
    return [
        [packs[index] for index in order[batch * size : (batch + 1) * size]]
        for batch in range(first, last)
    ]


def epoch_order(count: int, seed: int, epoch: int) -> List[int]:
    """The order of one epoch, independent of every other one."""
    import torch

    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    return [int(index) for index in torch.randperm(count, generator=generator)]


class Batch(NamedTuple):
    """Tensors of one forward pass; ``labels`` are already shifted, so position i predicts i."""

    input_ids: Any
    labels: Any
    position_ids: Any
    #: None, ``[rows, length]`` for padding, or ``[rows, 1, length, length]`` for packed rows.
    attention_mask: Any
    supervised: int
    tokens: int


def collate(rows: Sequence[Pack], pad: int, packing: bool) -> Batch:
    """Pads rows to the longest; packed samples get positions of their own and a mask in blocks."""
    import torch

    width = max(sum(len(sample.ids) for sample in row) for row in rows)
    ids = torch.full((len(rows), width), pad)
    labels = torch.full((len(rows), width), IGNORED)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    # Padding is a sample of its own, numbered 0: every token attends at least to itself.
    owner = torch.zeros((len(rows), width), dtype=torch.long)
    for index, row in enumerate(rows):
        start = 0
        for number, sample in enumerate(row, 1):
            end = start + len(sample.ids)
            ids[index, start:end] = torch.tensor(sample.ids)
            positions[index, start:end] = torch.arange(end - start)
            owner[index, start:end] = number
            labels[index, start : end - 1] = torch.tensor(
                [t if on else IGNORED for t, on in zip(sample.ids[1:], sample.taught[1:])],
                dtype=torch.long,
            )
            start = end
    supervised = int((labels != IGNORED).sum())
    mask = None
    if packing:
        causal = torch.ones((width, width), dtype=torch.bool).tril()
        mask = ((owner[:, :, None] == owner[:, None, :]) & causal)[:, None]
    elif bool((owner == 0).any()):
        mask = (owner > 0).long()
    return Batch(ids, labels, positions, mask, supervised, int((owner > 0).sum()))


def in_batches(packs: Sequence[Pack], size: int) -> Iterator[List[Pack]]:
    """Batches in order, for evaluation."""
    for start in range(0, len(packs), size):
        yield list(packs[start : start + size])
