"""The base model, its tokenizer and its adapter: loading, and refusing what does not fit."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from cjm_worker import CapabilityInputError
from cjm_worker.canonical import sha256
from cjm_worker.files import hash_file

from .settings import ALL_LINEAR, TrainSettings

CARD_NAME = "training.json"
WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def quiet_libraries() -> None:
    """The libraries print bars and advice to streams that nobody watches."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def model_folder(path: str) -> Path:
    """The folder of a model. Raises CapabilityInputError when it holds none."""
    folder = Path(path)
    if not folder.is_dir():
        raise CapabilityInputError(f"no model folder at {path}", fields_invalid=["model"])
    if not (folder / "config.json").is_file():
        raise CapabilityInputError(f"{path} has no config.json", fields_invalid=["model"])
    if not weight_files(folder):
        raise CapabilityInputError(f"{path} has no .safetensors weights", fields_invalid=["model"])
    return folder


def weight_files(folder: Path) -> List[Path]:
    return sorted(folder.glob("*.safetensors"))


def fingerprint(folder: Path, cache: Path) -> str:
    """``sha256:<hex>`` of a model's configuration and weights.

    Hashes of weight files are kept in ``cache`` by path, size and time of change, since reading a
    large model takes longer than planning a run.
    """
    known = _read_json(cache)
    lines: List[str] = []
    for file in [folder / "config.json", *weight_files(folder)]:
        status = file.stat()
        key = f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
        if key not in known:
            known[key] = hash_file(file)
        lines.append(f"{known[key]} {file.name}\n")
    cache.parent.mkdir(parents=True, exist_ok=True)
    draft = cache.with_name(f"{cache.name}.{os.getpid()}")
    draft.write_text(json.dumps(known), encoding="utf-8")
    draft.replace(cache)
    return sha256("".join(lines))


def _read_json(path: Path) -> Dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def load_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # it raises OSError, ValueError, KeyError, TypeError
        raise CapabilityInputError(
            f"{folder} has no usable tokenizer: {error}", fields_invalid=["model"]
        ) from error
    if tokenizer.pad_token_id is None:
        # Padding is masked wherever it stands, so any token serves.
        tokenizer.pad_token_id = tokenizer.eos_token_id or 0
    return tokenizer


def load_config(folder: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise CapabilityInputError(
            f"{folder} is not a model: {error}", fields_invalid=["model"]
        ) from error


@dataclass(frozen=True)
class Layers:
    """The linear layers of an architecture: module path to (outputs, inputs)."""

    linear: Mapping[str, Tuple[int, int]]
    head: Optional[str]
    parameters: int

    def names(self) -> List[str]:
        """The last parts of the paths, as targets are written."""
        return sorted({path.rpartition(".")[2] for path in self.linear if path != self.head})


def read_layers(config: Any) -> Layers:
    """The architecture without its weights."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise CapabilityInputError(
            f"the model is no causal language model: {error}", fields_invalid=["model"]
        ) from error
    head = model.get_output_embeddings()
    linear, head_name = {}, None
    for path, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            linear[path] = (module.out_features, module.in_features)
            head_name = path if module is head else head_name
    return Layers(linear, head_name, sum(p.numel() for p in model.parameters()))


def target_layers(layers: Layers, settings: TrainSettings) -> Dict[str, Tuple[int, int]]:
    """The layers that get an adapter. Raises CapabilityInputError for unknown or too small ones."""
    if settings.targets == ALL_LINEAR:
        chosen = {path: shape for path, shape in layers.linear.items() if path != layers.head}
    else:
        chosen = _named_layers(layers, settings.targets)
    small = {path: min(shape) for path, shape in chosen.items() if min(shape) < settings.rank}
    if small:
        path, limit = min(small.items(), key=lambda item: item[1])
        raise CapabilityInputError(
            f"rank {settings.rank} is larger than {path} allows ({limit})",
            fields_invalid=["settings.rank"],
        )
    return chosen


def _named_layers(layers: Layers, targets: Any) -> Dict[str, Tuple[int, int]]:
    chosen: Dict[str, Tuple[int, int]] = {}
    unknown: List[str] = []
    for name in targets:
        found = {p: s for p, s in layers.linear.items() if p == name or p.endswith(f".{name}")}
        chosen.update(found)
        unknown.extend([] if found else [name])
    if unknown or not targets:
        raise CapabilityInputError(
            f"the model has no modules {', '.join(unknown) or '(none named)'}; it has "
            + ", ".join(layers.names()),
            fields_invalid=["settings.targets"],
        )
    return chosen


def load_base(folder: Path, settings: TrainSettings, device: str) -> Any:
    """The frozen base in the form the settings ask for, on its device."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = getattr(torch, settings.compute_dtype)
    quantization = None
    if settings.quantization != "none":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=settings.quantization,
            bnb_4bit_use_double_quant=settings.double_quantization,
            bnb_4bit_compute_dtype=dtype,
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            local_files_only=True,
            dtype=dtype,
            quantization_config=quantization,
            device_map={"": device},
            attn_implementation="sdpa",
        )
    except (OSError, ValueError, KeyError) as error:
        raise CapabilityInputError(
            f"{folder} can not be loaded: {error}", fields_invalid=["model"]
        ) from error
    model.requires_grad_(False)
    return model


def add_adapter(model: Any, settings: TrainSettings, start_from: Optional[Path]) -> Any:
    """A new adapter on the base, seeded, or the one that a warm start continues."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    if settings.quantization != "none":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    model.config.use_cache = False
    torch.manual_seed(settings.seed)
    adapted = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM",
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=settings.dropout,
            use_rslora=settings.rslora,
            target_modules=settings.targets,
            bias="none",
        ),
    )
    # Steps of 2e-4 vanish in half precision, so the adapter is float32 whatever the base is.
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if start_from is not None:
        load_weights(adapted, start_from / WEIGHTS_NAME)
    return adapted


def adapter_tensors(model: Any) -> Dict[str, Any]:
    """The adapter under the names peft saves it by, on the CPU."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model)
    return {name: state[name].detach().cpu().contiguous() for name in sorted(state)}


def load_weights(model: Any, file: Path) -> None:
    """Puts saved tensors into an adapter, and checks that every one is there as it was saved."""
    import torch
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    saved = load_file(file)
    have = adapter_tensors(model)
    wrong = sorted(set(saved) ^ set(have)) or sorted(
        name for name in saved if saved[name].shape != have[name].shape
    )
    if wrong:
        raise CapabilityInputError(
            f"{file} was not made for this model and these settings: {len(wrong)} tensors differ, "
            f"the first is {wrong[0]}",
            fields_invalid=["adapter"],
        )
    set_peft_model_state_dict(model, saved)
    have = adapter_tensors(model)
    lost = [name for name in saved if not torch.equal(have[name], saved[name].to(have[name].dtype))]
    if lost:
        raise RuntimeError(f"peft did not load {lost[0]} as it was saved")


def check_warm_start(path: str, base: str, settings: TrainSettings) -> Tuple[Path, str]:
    """The folder and weight hash of an adapter to continue.

    Raises CapabilityInputError when it is none, is of another base or rank, or is not what its own
    card says.
    """
    folder = Path(path)
    config, weights = folder / ADAPTER_CONFIG, folder / WEIGHTS_NAME
    if not config.is_file() or not weights.is_file():
        raise CapabilityInputError(f"no adapter at {path}", fields_invalid=["adapter"])
    read: Any = _read_json(config)
    if read.get("r") != settings.rank:
        raise CapabilityInputError(
            f"the adapter's rank is {read.get('r')}, which can not change; the settings ask for "
            f"{settings.rank}",
            fields_invalid=["settings.rank"],
        )
    digest = hash_file(weights)
    card: Any = _read_json(folder / CARD_NAME)
    if card and card.get("weights_sha256") != digest:
        raise CapabilityInputError(
            f"{weights} is {digest}, its card says {card.get('weights_sha256')}",
            fields_invalid=["adapter"],
        )
    if card and card.get("model_sha256") != base:
        raise CapabilityInputError(
            f"the adapter was trained on another base, {card.get('model_sha256')}; this one is "
            f"{base}",
            fields_invalid=["adapter"],
        )
    check_adapted_names(weights)
    return folder, digest


def check_adapted_names(weights: Path) -> Set[str]:
    """The tensor names of an adapter. Raises CapabilityInputError when its file can not be read."""
    from safetensors import safe_open

    try:
        with safe_open(weights, framework="pt") as file:
            return set(file.keys())
    except Exception as error:  # SafetensorError has no public base
        raise CapabilityInputError(
            f"{weights} is not a safetensors file: {error}", fields_invalid=["adapter"]
        ) from error
