"""Checkpoints that are whole or not there, and the folder of a run.

A checkpoint is written beside its place, synced, named in a manifest with its hashes, renamed, and
read back. Whatever is torn by a crash is passed over, and the one before it is used.
"""

import fcntl
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from cjm_worker import CapabilityInputError
from cjm_worker.files import hash_file

ADAPTER = "adapter.safetensors"
OPTIMIZER = "optimizer.pt"
RNG = "rng.pt"
STATE = "state.json"
MANIFEST = "manifest.json"
_DRAFT = ".writing-"
_FORMAT = 1

Writer = Callable[[Path], None]


def sync_folder(folder: Path) -> None:
    """A rename is on disk only when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(file: Path) -> None:
    """Waits until the content is on disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def write_json(file: Path, value: Any) -> None:
    """Replaces a file as a whole."""
    draft = file.with_name(f"{_DRAFT}{file.name}")
    draft.write_text(json.dumps(value, indent=1, sort_keys=True), encoding="utf-8")
    sync_file(draft)
    draft.replace(file)
    sync_folder(file.parent)


def read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on disk."""

    folder: Path
    step: int
    state: Mapping[str, Any]


class RunFolder:
    """Everything a run keeps between the calls that work on it; one call at a time has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record_file = folder / "run.json"
        self.metrics_file = folder / "metrics.jsonl"
        self.finished_file = folder / "finished.json"
        #: A file that a person or another program puts here to get a checkpoint after the step.
        self.request_file = folder / "checkpoint-now"
        self._lock: Optional[int] = None

    def __enter__(self) -> "RunFolder":
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise CapabilityInputError(
                f"another call works on the run {self.folder.name}", fields_invalid=["run"]
            ) from error
        self._lock = descriptor
        for draft in self.folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(draft) if draft.is_dir() else draft.unlink()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def checkpoint_folders(self) -> List[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def write_checkpoint(self, step: int, writers: Mapping[str, Writer], keep: int) -> Path:
        """Writes the files of a checkpoint, and removes those beyond the ``keep`` newest ones.

        On an error, such as a full disk, what was there before is untouched.
        """
        final = self.folder / f"step-{step:08d}"
        draft = self.folder / f"{_DRAFT}{final.name}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            _fill(draft, step, writers)
            # A torn one of the same step may stand there; a whole one is replaced by its equal.
            shutil.rmtree(final, ignore_errors=True)
            draft.rename(final)
        except OSError:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        sync_folder(self.folder)
        problem = find_damage(final)
        if problem is not None:
            raise OSError(f"{final} was not written as it should be: {problem}")
        for old in self.checkpoint_folders()[keep:]:
            shutil.rmtree(old)
        return final

    def newest_checkpoint(self) -> Tuple[Optional[Checkpoint], List[str]]:
        """The newest whole checkpoint, and what is wrong with those that are newer."""
        damaged: List[str] = []
        for folder in self.checkpoint_folders():
            problem = find_damage(folder)
            if problem is None:
                state = read_json(folder / STATE)
                return Checkpoint(folder, int(state["step"]), state), damaged
            damaged.append(f"{folder.name} is passed over: {problem}")
        return None, damaged

    def trim_metrics(self, step: int) -> None:
        """Forgets the metrics of steps that will be done again."""
        if not self.metrics_file.exists():
            return
        kept: List[str] = []
        for line in self.metrics_file.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError:  # the line a crash cut
                break
        draft = self.metrics_file.with_name(f"{_DRAFT}metrics")
        draft.write_text("".join(kept), encoding="utf-8")
        draft.replace(self.metrics_file)


def _fill(draft: Path, step: int, writers: Mapping[str, Writer]) -> None:
    files: Dict[str, Any] = {}
    for name, write in writers.items():
        file = draft / name
        write(file)
        sync_file(file)
        files[name] = {"sha256": hash_file(file), "size": file.stat().st_size}
    write_json(draft / MANIFEST, {"format": _FORMAT, "step": step, "files": files})


def find_damage(folder: Path) -> Optional[str]:
    """What is wrong with a checkpoint, or None when it is whole."""
    try:
        manifest = read_json(folder / MANIFEST)
        if manifest["format"] != _FORMAT:
            return f"it has format {manifest['format']}"
        for name, expected in manifest["files"].items():
            if hash_file(folder / name) != expected["sha256"]:
                return f"{name} is not what the manifest says"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None
