"""What a training run is made of; every field says why its default is what it is."""

from dataclasses import dataclass, field, fields, replace
from typing import Any, List, Literal, Mapping, Optional, Union

from cjm_worker import CapabilityInputError
from cjm_worker.canonical import canonical_json, sha256
from cjm_worker.schema import to_plain

ALL_LINEAR = "all-linear"


def setting(default: Any, description: str, **limits: Any) -> Any:
    """A field with its documentation and limits, which become its JSON Schema."""
    metadata = {"description": description, **limits}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainSettings:
    """One training run; equal settings have equal hashes."""

    rank: int = setting(64, "LoRA rank; 64 as in QLoRA.", minimum=1, maximum=256)
    alpha: float = setting(
        128, "LoRA alpha; twice the rank, so that A·B counts double.", exclusiveMinimum=0
    )
    dropout: float = setting(
        0.1, "LoRA dropout; 0.1 keeps small data sets from being memorised.", minimum=0, maximum=0.9
    )
    rslora: bool = setting(False, "Scale by alpha/sqrt(rank); changes what alpha means, so off.")
    targets: Union[Literal["all-linear"], List[str]] = setting(
        ALL_LINEAR,
        "Module names to adapt. Every linear layer but the head: attention alone falls short of "
        "full fine-tuning in the QLoRA paper.",
    )
    quantization: Literal["nf4", "fp4", "none"] = setting(
        "nf4", "Form of the frozen base; NF4 loses least at 4 bits."
    )
    double_quantization: bool = setting(
        True, "Quantise the block scales too: 0.05 bytes per parameter less."
    )
    compute_dtype: Literal["auto", "bfloat16", "float16", "float32"] = setting(
        "auto", "auto: bfloat16 where CUDA supports it, else float32."
    )
    batch_size: int = setting(
        1, "Rows per forward pass; 1 fits where anything fits.", minimum=1, maximum=1024
    )
    accumulation: int = setting(
        16, "Forward passes per optimizer step; 16 makes up for the batch of 1.", minimum=1
    )
    learning_rate: float = setting(2e-4, "Peak rate.", exclusiveMinimum=0, maximum=1)
    scheduler: Literal["constant", "linear", "cosine"] = setting(
        "constant", "constant after the warm-up, as in QLoRA: no need to know the end beforehand."
    )
    warmup_ratio: float = setting(
        0.03, "Share of the steps that warm up, rounded up.", minimum=0, maximum=1
    )
    weight_decay: float = setting(0.0, "A small adapter needs none.", minimum=0)
    max_grad_norm: float = setting(1.0, "Gradients are clipped to this norm.", exclusiveMinimum=0)
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = setting(
        "auto", "auto: paged_adamw_8bit on CUDA, adamw on the CPU, where paging has no meaning."
    )
    epochs: int = setting(3, "Passes over the data.", minimum=1, maximum=1000)
    max_steps: Optional[int] = setting(
        None, "Optimizer steps instead of epochs; null: as many as the epochs have.", minimum=1
    )
    max_length: int = setting(
        2048, "Tokens per row; doubling it doubles the activations.", minimum=8
    )
    over_length: Literal["drop", "truncate", "error"] = setting(
        "drop", "Rows beyond max_length. drop: a cut answer teaches to stop anywhere."
    )
    packing: bool = setting(
        False, "Several samples per row, each attending only to itself; changes the batch's size."
    )
    loss_on: Literal["assistant", "completion", "all"] = setting(
        "assistant", "Tokens that are learned: every assistant turn, only the last one, or all."
    )
    chat_template: Optional[str] = setting(None, "Jinja chat template; null: the tokenizer's own.")
    neftune_alpha: Optional[float] = setting(
        None, "Noise on the embeddings (NEFTune); null: none.", exclusiveMinimum=0
    )
    gradient_checkpointing: bool = setting(
        True, "Compute activations twice rather than keep them: a third slower, much smaller."
    )
    seed: int = setting(42, "Of the order, the adapter, dropout and the eval split.", minimum=0)
    eval_split: float = setting(
        0.0, "Share of the rows held out when no eval dataset is given.", minimum=0, maximum=0.9
    )
    eval_every: Optional[int] = setting(
        None, "Steps between evaluations; null: after each epoch.", minimum=1
    )
    early_stop_patience: Optional[int] = setting(
        None, "Evaluations without improvement before stopping; null: never.", minimum=1
    )
    early_stop_min_delta: float = setting(0.0, "What counts as an improvement.", minimum=0)
    watchdog_factor: float = setting(
        3.0, "Diverged: the loss exceeds this many times the first one …", exclusiveMinimum=1
    )
    watchdog_patience: int = setting(3, "… for this many steps in a row.", minimum=1)
    checkpoint_every: Optional[int] = setting(
        50, "Steps between checkpoints; null: only on cancel and on request.", minimum=1
    )
    keep_checkpoints: int = setting(
        2, "Checkpoints kept; 2, so that a torn one costs nothing.", minimum=1
    )

    @property
    def scaling(self) -> float:
        """What A·B is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rslora else self.rank)

    def hash(self) -> str:
        """``sha256:<hex>`` of the canonical JSON, every default filled in."""
        return sha256(canonical_json(to_plain(self)))

    def resolved(self, device: str, bfloat16: bool) -> "TrainSettings":
        """These settings with every ``auto`` decided for a device."""
        dtype, optimizer = self.compute_dtype, self.optimizer
        if dtype == "auto":
            dtype = "bfloat16" if bfloat16 else "float32"
        if optimizer == "auto":
            optimizer = "paged_adamw_8bit" if device == "cuda" else "adamw"
        if optimizer == "paged_adamw_8bit" and device != "cuda":
            raise CapabilityInputError(
                "paged_adamw_8bit pages between GPU and host memory; on the CPU use adamw or "
                "adamw_8bit",
                fields_invalid=["settings.optimizer"],
            )
        return replace(self, compute_dtype=dtype, optimizer=optimizer)


def settings_from(data: Mapping[str, Any]) -> TrainSettings:
    """Settings as a checkpoint or a card holds them."""
    known = {item.name for item in fields(TrainSettings)}
    return TrainSettings(**{key: value for key, value in data.items() if key in known})
