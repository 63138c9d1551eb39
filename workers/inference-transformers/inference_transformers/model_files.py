"""A model's folder: what its files say without loading them, and whether they are whole."""

import json
import os
import struct
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

from cjm_worker.canonical import sha256
from cjm_worker.files import hash_file

from .fields import ModelCard
from .problems import TaskInputError

_MAX_HEADER = 100 * 1024 * 1024
Progress = Callable[[float], None]


def read_json(path: Path) -> Dict[str, Any]:
    """An object in a file; empty where there is none to read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def safetensors_header(file: Path) -> Dict[str, Any]:
    """The names, types and shapes in a safetensors file. Raises ValueError for one that is torn."""
    size = file.stat().st_size
    with file.open("rb") as source:
        start = source.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1
        if length > min(size, _MAX_HEADER):
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(source.read(length))
    if not isinstance(header, dict):
        raise ValueError(f"{file.name} is no safetensors file")
    header.pop("__metadata__", None)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    if size != 8 + length + end:
        raise ValueError(f"{file.name} has {size} bytes; its header says {8 + length + end}")
    return header


class ModelFolder:
    """A folder with ``config.json`` and safetensors weights.

    Raises ``model_missing`` when there is none at the path, ``model_invalid`` when a file is
    missing, torn or unreadable.
    """

    def __init__(self, path: Optional[str]) -> None:
        if not path:
            raise TaskInputError("model_missing", "the configuration names no model", ["model"])
        self.path = _place(path)
        if not self.path.is_dir():
            raise TaskInputError("model_missing", f"no model folder at {path}", ["model"])
        self.config = read_json(self.path / "config.json")
        if not self.config:
            raise self.invalid("config.json is missing or no JSON object")
        self.weights = self._weights()
        self._headers: Optional[List[Mapping[str, Any]]] = None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def invalid(self, what: object) -> TaskInputError:
        return TaskInputError("model_invalid", f"{self.path}: {what}", ["model"])

    def _weights(self) -> List[Path]:
        index = read_json(self.path / "model.safetensors.index.json").get("weight_map", {})
        names = sorted(set(index.values())) or sorted(
            file.name for file in self.path.glob("*.safetensors")
        )
        missing = [name for name in names if not (self.path / name).is_file()]
        if missing or not names:
            raise self.invalid(f"{', '.join(missing) or 'every .safetensors file'} is missing")
        return [self.path / name for name in names]

    def check(self) -> List[Mapping[str, Any]]:
        """Reads the header of every weight file; raises ``model_invalid`` for a torn one."""
        if self._headers is None:
            try:
                self._headers = [safetensors_header(file) for file in self.weights]
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise self.invalid(error) from error
        return self._headers

    def card(self, hashes: "HashCache") -> ModelCard:
        """What the files say; the hash only where it is known already."""
        headers = self.check()
        tensors = [entry for header in headers for entry in header.values()]
        tokenizer = read_json(self.path / "tokenizer_config.json")
        templates = ("chat_template.jinja", "chat_template.json")
        text = self.config.get("text_config", self.config)
        quantization = self.config.get("quantization_config") or {}
        return ModelCard(
            id=self.name,
            path=str(self.path),
            format="safetensors",
            architecture=next(iter(self.config.get("architectures") or []), None),
            quantization=quantization.get("quant_method"),
            parameters=None if quantization else sum(_count(t["shape"]) for t in tensors),
            bytes=sum(file.stat().st_size for file in self.weights),
            context_length=text.get("max_position_embeddings"),
            chat_template="chat_template" in tokenizer
            or any((self.path / name).is_file() for name in templates),
            sha256=hashes.known(self),
        )


def _place(path: str) -> Path:
    """A relative path is looked for in the models folder of the host first."""
    models = os.environ.get("CJM_MODELS_DIR")
    shared = Path(models) / path if models else Path(path)
    return shared if shared.is_dir() else Path(path)


def _count(shape: List[int]) -> int:
    product = 1
    for length in shape:
        product *= length
    return product


class HashCache:
    """Hashes of weight files by path, size and time of change, kept in a file.

    Reading a large model only to name it takes longer than answering a call.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def known(self, folder: ModelFolder) -> Optional[str]:
        """``sha256:<hex>`` of configuration and weights, if no file has to be read for it."""
        kept = read_json(self._file)
        files = [folder.path / "config.json", *folder.weights]
        lines = [(kept.get(_stamp(file)), file.name) for file in files]
        if any(digest is None for digest, _ in lines):
            return None
        return _combine([f"{digest} {name}\n" for digest, name in lines])

    def of(self, folder: ModelFolder, progress: Progress) -> str:
        """The same, reading what is not known; the trainer computes the same one."""
        kept = read_json(self._file)
        files = [folder.path / "config.json", *folder.weights]
        total = sum(file.stat().st_size for file in files)
        done = 0
        lines: List[str] = []
        for file in files:
            stamp = _stamp(file)
            if stamp not in kept:
                kept[stamp] = hash_file(file)
            lines.append(f"{kept[stamp]} {file.name}\n")
            done += file.stat().st_size
            progress(done / total)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_name(f"{self._file.name}.{os.getpid()}")
        draft.write_text(json.dumps(kept), encoding="utf-8")
        draft.replace(self._file)
        return _combine(lines)


def _combine(lines: List[str]) -> str:
    return sha256("".join(lines))


def _stamp(file: Path) -> str:
    status = file.stat()
    return f"{file.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
