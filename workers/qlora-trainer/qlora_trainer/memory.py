"""Memory: what a run will need, what it took, and what would fit."""

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, Mapping, Optional, Tuple

from cjm_worker.canonical import hash_canonical

from .prepare import Prepared
from .settings import TrainSettings

MB = 1_000_000
#: Interpreter and libraries in host memory before any model; measured with torch 2.13.
_LIBRARIES_MB = 450.0
_HISTORY = 5
_DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def predict_mb(prepared: Prepared, settings: Optional[TrainSettings] = None) -> Dict[str, float]:
    """Peak by part, in MB of 10**6: base, adapter, optimizer, activations, logits, libraries.

    A model of the arithmetic, not of an allocator; :class:`Profiles` corrects it by what runs took.
    """
    chosen = settings or prepared.settings
    parts = _weights(prepared, chosen)
    tokens, taught = _largest_batch(prepared, chosen)
    width = _DTYPE_BYTES[chosen.compute_dtype]
    config = prepared.architecture.get_text_config()
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
    # Inputs of the linear layers and of the norms, in float32 where a norm computes so.
    one_layer = tokens * (width * (8 * hidden + 3 * inner) + 8 * hidden)
    kept = tokens * hidden * width
    activations = layers * kept + 2 * one_layer
    if not chosen.gradient_checkpointing:
        activations = layers * one_layer
    parts["activations"] = activations / MB
    parts["logits"] = taught * int(config.vocab_size) * (width + 12) / MB
    parts["libraries"] = 0.0 if prepared.device == "cuda" else _LIBRARIES_MB
    return parts


def _weights(prepared: Prepared, settings: TrainSettings) -> Dict[str, float]:
    layers = prepared.layers
    packed = sum(out * into for path, (out, into) in layers.linear.items() if path != layers.head)
    dtype_bytes = _DTYPE_BYTES[settings.compute_dtype]
    if settings.quantization == "none":
        base = float(layers.parameters * dtype_bytes)
    else:
        scales = 1 / 64 + 4 / (64 * 256) if settings.double_quantization else 4 / 64
        # peft casts what is not quantised to float32.
        base = packed * (0.5 + scales) + (layers.parameters - packed) * 4
        base += max((o * i for o, i in layers.linear.values()), default=0) * dtype_bytes
    trainable = sum((o + i) * settings.rank for o, i in prepared.targets.values())
    moments = 8 if settings.optimizer == "adamw" else 2
    return {
        "base": base / MB,
        "adapter": trainable * 8 / MB,
        "optimizer": trainable * moments / MB,
    }


def _largest_batch(prepared: Prepared, settings: TrainSettings) -> Tuple[int, int]:
    """Tokens with their padding, and learned tokens, of the largest batch there can be."""
    rows = sorted((sum(len(s.ids) for s in pack) for pack in prepared.packs), reverse=True)
    taught = sorted((sum(s.supervised for s in pack) for pack in prepared.packs), reverse=True)
    size = settings.batch_size
    longest = min(rows[0], settings.max_length)
    return longest * min(size, len(rows)), sum(min(n, longest) for n in taught[:size])


def advice(prepared: Prepared, free_mb: float, needed_mb: float) -> str:
    """The first change of settings that fits, by this prediction scaled to what was needed."""
    settings = prepared.settings
    scale = needed_mb / max(1.0, sum(predict_mb(prepared).values()))
    changes: List[Tuple[str, TrainSettings]] = []
    if not settings.gradient_checkpointing:
        changes.append(
            ("gradient_checkpointing: true", replace(settings, gradient_checkpointing=True))
        )
    if settings.quantization == "none":
        changes.append(("quantization: nf4", replace(settings, quantization="nf4")))
    if settings.batch_size > 1:
        times = settings.batch_size * settings.accumulation
        small = replace(settings, batch_size=1, accumulation=times)
        changes.append((f"batch_size: 1 with accumulation: {times}", small))
    length = settings.max_length // 2
    while length >= 64:
        changes.append((f"max_length: {length}", replace(settings, max_length=length)))
        length //= 2
    for words, changed in changes:
        if sum(predict_mb(prepared, changed).values()) * scale <= free_mb:
            return f"{words} should fit"
    return "no setting of this run fits; a smaller base model or a larger device is needed"


class PeakMeter:
    """Peak memory since it was made: of the allocator on CUDA, of the process elsewhere."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()
        elif sys.platform.startswith("linux"):
            try:
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            except OSError:  # some containers forbid it; the peak is then that of the process
                pass

    def peak_mb(self) -> float:
        if self.device == "cuda":
            import torch

            return float(torch.cuda.max_memory_reserved()) / MB
        if sys.platform.startswith("linux"):
            for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024 / MB
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MB


def held_mb(device: str) -> float:
    """Memory held now: reserved by the allocator on CUDA, resident elsewhere."""
    if device == "cuda":
        import torch

        return float(torch.cuda.memory_reserved()) / MB
    if not sys.platform.startswith("linux"):
        return 0.0
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    import os

    return pages * os.sysconf("SC_PAGE_SIZE") / MB


def give_back(device: str) -> None:
    """Returns what is free inside the process to the device or the system."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        return
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Profiles:
    """What earlier runs of the same kind took, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def key(self, prepared: Prepared) -> str:
        settings = prepared.settings
        longest = max(sum(len(s.ids) for s in pack) for pack in prepared.packs)
        kind = [
            prepared.identity.model_sha256,
            prepared.device,
            settings.quantization,
            settings.compute_dtype,
            settings.optimizer,
            settings.rank,
            len(prepared.targets),
            settings.batch_size,
            settings.gradient_checkpointing,
            -(-longest // 64),
        ]
        return hash_canonical(kind)

    def history(self, key: str) -> List[Mapping[str, float]]:
        found = self._read().get(key, [])
        return found if isinstance(found, list) else []

    def add(self, key: str, predicted_mb: float, peak_mb: float, tokens_per_second: float) -> None:
        everything = self._read()
        sample = {"predicted": predicted_mb, "peak": peak_mb, "rate": tokens_per_second}
        everything[key] = [*everything.get(key, []), sample][-_HISTORY:]
        draft = self._file.with_name(f".{self._file.name}")
        draft.write_text(json.dumps(everything), encoding="utf-8")
        draft.replace(self._file)

    def corrected(self, key: str, predicted_mb: float) -> Tuple[float, Optional[float], int]:
        """Peak in MB, tokens per second where known, and how many runs that rests on."""
        history = self.history(key)
        if not history:
            return predicted_mb, None, 0
        factor = median(sample["peak"] / sample["predicted"] for sample in history)
        return predicted_mb * factor, median(s["rate"] for s in history), len(history)

    def _read(self) -> Dict[str, Any]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
