"""What a run is made of, checked before any step: shared by plan, train, resume and evaluate."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

from cjm_worker import Call, CapabilityInputError, CapabilityResourceError, ResourceShortfall
from cjm_worker.canonical import sha256
from cjm_worker.files import DirRef, hash_file
from cjm_worker.schema import to_plain

from .batches import Fitted, Pack, Schedule, fit_length, make_packs, make_schedule
from .dataset import BadRow, Row, read_rows, refuse_rows
from .masks import Encoder, Sample
from .models import (
    Layers,
    check_warm_start,
    fingerprint,
    load_config,
    load_tokenizer,
    model_folder,
    read_layers,
    target_layers,
)
from .settings import TrainSettings, settings_from


@dataclass(frozen=True)
class Order:
    """What was asked for; all a later ``resume`` needs."""

    model: str
    dataset: str
    eval_dataset: Optional[str]
    adapter: Optional[str]
    settings: TrainSettings

    def to_json(self) -> Dict[str, Any]:
        return dict(to_plain(self))

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Order":
        return cls(**{**data, "settings": settings_from(data["settings"])})


@dataclass(frozen=True)
class Identity:
    """Hashes of everything that decides what a run computes."""

    config_sha256: str
    model_sha256: str
    data_sha256: str
    eval_sha256: Optional[str]
    adapter_sha256: Optional[str]


@dataclass(frozen=True)
class Prepared:
    """A run that can start."""

    order: Order
    settings: TrainSettings
    folder: Path
    device: str
    identity: Identity
    tokenizer: Any
    layers: Layers
    targets: Mapping[str, Tuple[int, int]]
    architecture: Any
    fitted: Fitted
    packs: List[Pack]
    eval_packs: List[Pack]
    schedule: Schedule
    warnings: List[str]

    @property
    def trainable_parameters(self) -> int:
        return sum((out + into) * self.settings.rank for out, into in self.targets.values())


def hash_data(path: str) -> str:
    """Of a file, or of everything in a folder of trajectories."""
    source = Path(path)
    if source.is_dir():
        return DirRef.of(source).sha256
    if source.is_file():
        return hash_file(source)
    raise CapabilityInputError(f"no data set at {path}", fields_invalid=["dataset"])


def encode_rows(encoder: Encoder, rows: List[Row], path: str, call: Call) -> List[Sample]:
    """Tokenises rows. Raises CapabilityInputError that names every row without a learned token."""
    samples: List[Sample] = []
    problems: List[str] = []
    for index, row in enumerate(rows):
        if index % 256 == 0:
            call.check_cancel()
            call.report_progress(-1, f"tokenising row {index + 1} of {len(rows)}")
        try:
            sample = encoder.encode(row)
            if sample.supervised == 0:
                raise BadRow("has no token to learn")
            samples.append(sample)
        except BadRow as error:
            problems.append(f"line {row.line}: {error}")
    refuse_rows(path, problems)
    return samples


def prepare(order: Order, device: str, cache: Path, call: Call) -> Prepared:
    """Reads and checks everything. Raises CapabilityInputError for whatever can not be trained."""
    import torch

    bfloat16 = device == "cuda" and torch.cuda.is_bf16_supported()
    settings = order.settings.resolved(device, bfloat16)
    folder = model_folder(order.model)
    architecture = load_config(folder)
    layers = read_layers(architecture)
    targets = target_layers(layers, settings)
    tokenizer = load_tokenizer(folder)
    encoder = Encoder(tokenizer, settings.chat_template, settings.loss_on)
    data_sha256 = hash_data(order.dataset)
    rows, note = read_rows(order.dataset)
    samples = encode_rows(encoder, rows, order.dataset, call)
    samples, eval_samples = _held_out(samples, order, encoder, call)
    fitted = _fit(samples, order.dataset, settings)
    call.report_progress(-1, "hashing the base model")
    model_sha256 = fingerprint(folder, cache)
    adapter_sha256 = None
    if order.adapter is not None:
        adapter_sha256 = check_warm_start(order.adapter, model_sha256, settings)[1]
    packs = make_packs(fitted.samples, settings)
    eval_fitted = fit_length(eval_samples, settings)
    return Prepared(
        order=order,
        settings=settings,
        folder=folder,
        device=device,
        identity=Identity(
            config_sha256=order.settings.hash(),
            model_sha256=model_sha256,
            data_sha256=data_sha256,
            eval_sha256=None if order.eval_dataset is None else hash_data(order.eval_dataset),
            adapter_sha256=adapter_sha256,
        ),
        tokenizer=tokenizer,
        layers=layers,
        targets=targets,
        architecture=architecture,
        fitted=fitted,
        packs=packs,
        eval_packs=make_packs(eval_fitted.samples, settings),
        schedule=make_schedule(len(packs), settings),
        warnings=[*([f"passed over {note}"] if note else []), *_warnings(fitted, settings)],
    )


def _held_out(
    samples: List[Sample], order: Order, encoder: Encoder, call: Call
) -> Tuple[List[Sample], List[Sample]]:
    if order.eval_dataset is not None:
        rows, _ = read_rows(order.eval_dataset)
        return samples, encode_rows(encoder, rows, order.eval_dataset, call)
    count = round(len(samples) * order.settings.eval_split)
    if count == 0:
        return samples, []
    if count >= len(samples):
        raise CapabilityInputError(
            f"eval_split leaves none of {len(samples)} rows to train on",
            fields_invalid=["settings.eval_split"],
        )
    chosen = set(random.Random(order.settings.seed).sample(range(len(samples)), count))
    held = [sample for index, sample in enumerate(samples) if index in chosen]
    return [sample for index, sample in enumerate(samples) if index not in chosen], held


def _fit(samples: List[Sample], path: str, settings: TrainSettings) -> Fitted:
    limit = settings.max_length
    if settings.over_length == "error":
        long = [sample for sample in samples if len(sample.ids) > limit]
        refuse_rows(
            path, [f"line {s.line}: has {len(s.ids)} tokens, more than {limit}" for s in long]
        )
    fitted = fit_length(samples, settings)
    if not fitted.samples:
        shortest = min(len(sample.ids) for sample in samples)
        raise CapabilityInputError(
            f"nothing to learn is left: all {len(samples)} rows are longer than max_length {limit} "
            f"(the shortest has {shortest} tokens)",
            fields_invalid=["settings.max_length"],
        )
    return fitted


def _warnings(fitted: Fitted, settings: TrainSettings) -> List[str]:
    found: List[str] = []
    if fitted.dropped_lines:
        found.append(f"{len(fitted.dropped_lines)} rows are dropped for their length")
    if fitted.truncated_lines:
        found.append(
            f"{len(fitted.truncated_lines)} rows are cut to {settings.max_length} tokens; they "
            "teach to stop in mid-answer"
        )
    return found


def output_bytes(prepared: Prepared) -> int:
    """What checkpoints and the adapter will take on disk: weights, two moments, both in float32."""
    adapter = prepared.trainable_parameters * 4
    settings = prepared.settings
    return adapter * 3 * (settings.keep_checkpoints + 1) + adapter + 1_000_000


def check_disk(prepared: Prepared, folder: Path) -> None:
    """Raises CapabilityResourceError when the checkpoints will not fit."""
    import shutil

    needed, free = output_bytes(prepared), shutil.disk_usage(folder).free
    if needed > free:
        raise CapabilityResourceError(
            f"the run needs {needed / 1e6:.1f} MB on the disk of {folder}, {free / 1e6:.1f} MB are "
            "free; a lower rank, fewer targets or fewer checkpoints need less",
            resource_shortfall=ResourceShortfall("disk_mb", needed / 1e6, free / 1e6),
        )


def identity_hash(identity: Identity) -> str:
    """One hash of everything; equal runs have equal ones."""
    return sha256(repr(sorted(to_plain(identity).items())))
