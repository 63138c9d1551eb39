"""What the actions answer."""

from dataclasses import dataclass
from typing import Dict, List, Optional

from cjm_worker import DirRef, FileRef


@dataclass
class PlanReport:
    """A run that would start; hashes, counts and predictions."""

    config_sha256: str
    data_sha256: str
    model_sha256: str
    rows: int
    eval_rows: int
    supervised_tokens: int
    total_tokens: int
    #: Rows by token count, in buckets that double.
    length_histogram: Dict[str, int]
    dropped_lines: List[int]
    truncated_lines: List[int]
    #: Learned tokens that dropped and truncated rows lose.
    lost_tokens: int
    #: Rows of a batch once samples are packed, and how full they are.
    packed_rows: int
    fill: float
    steps: int
    steps_per_epoch: int
    warmup_steps: int
    trainable_parameters: int
    base_parameters: int
    device: str
    predicted_peak_mb: float
    predicted_parts_mb: Dict[str, float]
    #: None until a run of this kind was measured on this machine.
    predicted_seconds: Optional[float]
    #: Measured runs that the predictions rest on.
    measured_runs: int
    disk_mb: float
    warnings: List[str]


@dataclass
class TrainReport:
    """A finished run. The files lie in the call's output folder."""

    run: str
    adapter: DirRef
    weights: FileRef
    card: FileRef
    metrics: FileRef
    steps: int
    #: Steps that this call executed; fewer than ``steps`` when it resumed.
    steps_executed: int
    resumed_from_step: Optional[int]
    first_loss: float
    final_loss: float
    eval_loss: Optional[float]
    eval_accuracy: Optional[float]
    stopped_early: bool
    supervised_tokens: int
    supervised_tokens_per_second: float
    peak_mb: float
    predicted_peak_mb: float
    seconds: float
    warnings: List[str]


@dataclass
class Answer:
    """One question that was asked of the model."""

    line: int
    expected: str
    given: str


@dataclass
class EvalReport:
    """How well a model, with or without an adapter, knows a data set."""

    rows: int
    supervised_tokens: int
    loss: float
    perplexity: float
    token_accuracy: float
    #: Share of rows answered word for word; None unless answers were asked for.
    exact_match: Optional[float]
    #: The first answers, at most 20.
    answers: List[Answer]


@dataclass
class MergeReport:
    """A base with the adapter inside."""

    model: DirRef
    merged_layers: int
    #: Largest difference of a logit between base with adapter and merged model, on a probe.
    largest_difference: float
