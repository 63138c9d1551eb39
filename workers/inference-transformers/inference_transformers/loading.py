"""From a model's folder to a model in memory, with progress that is measured."""

import logging
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Callable, FrozenSet, Iterable, Iterator, List, Optional

from .model_files import ModelFolder
from .problems import TaskInputError

log = logging.getLogger("inference_transformers")
#: Values that share a scale when a base is quantised.
_BLOCK = 64
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Form:
    """How a model is held: device, number type, quantisation."""

    device: str
    dtype: str
    quantization: str


def decide_device(wanted: str) -> str:
    """``auto`` decided. Raises ``CAPABILITY_INPUT`` for CUDA where there is none."""
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        message = "device is cuda, but torch finds no CUDA device"
        raise TaskInputError("parameter_unsupported", message, ["device"])
    return "cuda" if available and wanted != "cpu" else "cpu"


def decide_dtype(wanted: str, device: str) -> str:
    """``auto``: bfloat16 where CUDA supports it, else float32."""
    import torch

    if wanted != "auto":
        return wanted
    return "bfloat16" if device == "cuda" and torch.cuda.is_bf16_supported() else "float32"


class _Counted:
    """Stands where transformers would draw a bar, and counts what went through it."""

    def __init__(self, items: Iterable[Any], total: Optional[int], progress: Progress) -> None:
        self._items = items
        self._total = total or (len(items) if hasattr(items, "__len__") else 0)  # type: ignore[arg-type]
        self._progress = progress
        self._done = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            yield item
            self.update(1)

    def update(self, count: float = 1) -> None:
        self._done += int(count)
        if self._total:
            self._progress(min(1.0, self._done / self._total))

    def __enter__(self) -> "_Counted":
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


_hook_lock = threading.Lock()


@contextmanager
def _weights_counted(progress: Progress) -> Iterator[None]:
    """While the block runs, the bar over the loaded weights reports here."""
    from transformers.utils import logging as transformers_logging

    def hook(factory: Any, args: Any, kwargs: Any) -> Any:
        items = args[0] if args else kwargs.get("iterable") or ()
        return _Counted(items, kwargs.get("total"), progress)

    with _hook_lock:
        previous = transformers_logging.set_tqdm_hook(hook)
        try:
            yield
        finally:
            transformers_logging.set_tqdm_hook(previous)


def load_tokenizer(folder: ModelFolder) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder.path, local_files_only=True)
    except Exception as error:  # it raises OSError, ValueError, KeyError, TypeError
        raise folder.invalid(f"no usable tokenizer: {error}") from error


def load_model(folder: ModelFolder, form: Form, progress: Progress) -> Any:
    """The model in evaluation mode. Raises ``model_invalid``, or what the device raises."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    quantization = _quantization(folder, form)
    folder.check()
    try:
        config = AutoConfig.from_pretrained(folder.path, local_files_only=True)
        with _weights_counted(progress):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder.path,
                config=config,
                local_files_only=True,
                dtype=getattr(torch, form.dtype),
                quantization_config=quantization,
                device_map={"": form.device},
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise folder.invalid(error) from error
    model, told = loaded
    lost = [*told["missing_keys"], *told["mismatched_keys"]]
    if lost:
        # transformers fills what is missing with random numbers and goes on.
        raise folder.invalid(f"{len(lost)} weights are missing or misshapen, as {sorted(lost)[0]}")
    _check_blocks(folder, model, form)
    model.requires_grad_(False)
    model.eval()
    return model


def _quantization(folder: ModelFolder, form: Form) -> Any:
    if form.quantization == "none":
        return None
    try:
        import bitsandbytes  # noqa: F401
        import torch
        from transformers import BitsAndBytesConfig
    except ImportError as error:
        message = f"quantization {form.quantization} needs bitsandbytes: {error}"
        raise TaskInputError("parameter_unsupported", message, ["quantization"]) from error
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=form.quantization,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, form.dtype),
    )


def _check_blocks(folder: ModelFolder, model: Any, form: Form) -> None:
    """Its CPU kernel restores rows whose length is no multiple of the block wrongly."""
    if form.quantization == "none" or form.device != "cpu":
        return
    for path, module in model.named_modules():
        if type(module).__name__ == "Linear4bit" and module.in_features % _BLOCK:
            message = (
                f"on the CPU bitsandbytes cannot restore {path}: its {module.in_features} inputs "
                f"are no multiple of {_BLOCK}; use quantization none, or a GPU"
            )
            raise TaskInputError("parameter_unsupported", message, ["quantization"])


def end_tokens(model: Any, tokenizer: Any) -> FrozenSet[int]:
    """Tokens by which the model ends its text."""
    found: List[Any] = [tokenizer.eos_token_id]
    for config in (model.generation_config, model.config):
        ids = getattr(config, "eos_token_id", None)
        found += ids if isinstance(ids, (list, tuple)) else [ids]
    return frozenset(number for number in found if isinstance(number, int))


def context_length(model: Any, configured: Optional[int]) -> int:
    """Tokens a prompt and its continuation may have."""
    text = model.config.get_text_config()
    trained = getattr(text, "max_position_embeddings", None)
    limits = [limit for limit in (trained, configured) if limit]
    return min(limits) if limits else 2048
