"""What loading took, measured, by model, number type, context, texts at once and adapters."""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List

from .model_files import read_json

_MOST = 500
#: Of all books: several may be of one file.
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Profile:
    """One measured load, of the base or of adapters into it."""

    model_sha256: str
    #: ``nf4``, ``fp4``, or the number type of a base that is not quantised.
    quantization: str
    device: str
    context_size: int
    slots: int
    #: Content hashes of the adapters that were in it afterwards, comma between; empty: the base.
    adapters: str
    threads: int
    load_ms: int
    #: What it took: of the allocator on CUDA, of resident memory elsewhere.
    memory_mb: float
    total_mb: float

    @property
    def key(self) -> str:
        named = (self.model_sha256, self.quantization, self.device, self.context_size, self.slots)
        return " ".join(map(str, (*named, self.adapters)))


class ProfileBook:
    """Profiles in a file, kept between runs; the oldest of too many go."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def all(self) -> List[Profile]:
        return [Profile(**kept) for kept in self._read().values()]

    def record(self, profile: Profile) -> None:
        with _LOCK:
            kept = self._read()
            # One that is measured again becomes the newest.
            kept.pop(profile.key, None)
            kept[profile.key] = asdict(profile)
            newest = dict(list(kept.items())[-_MOST:])
            partial = self._file.with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(newest, indent=1), encoding="utf-8")
            partial.replace(self._file)

    def _read(self) -> Dict[str, Any]:
        fields = set(Profile.__dataclass_fields__)
        kept = read_json(self._file)
        return {
            key: value
            for key, value in kept.items()
            if isinstance(value, dict) and set(value) == fields
        }
