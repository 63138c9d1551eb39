"""What the trainer's tests share."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional

import pytest

ROOT = Path(__file__).parents[3]
for place in (ROOT / "python" / "src", ROOT / "workers" / "qlora-trainer", Path(__file__).parent):
    sys.path.insert(0, str(place))

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_DATA = tempfile.TemporaryDirectory(prefix="qlora-trainer-")
os.environ["CAPABILITY_DATA_DIR"] = _DATA.name

from tiny import make_model, task_rows, write_rows  # noqa: E402

SETTINGS: Dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "dropout": 0.1,
    "batch_size": 4,
    "accumulation": 2,
    "learning_rate": 0.01,
    "max_length": 64,
    "max_steps": 6,
    "checkpoint_every": 2,
    "gradient_checkpointing": False,
}


@pytest.fixture(scope="session")
def model(tmp_path_factory: Any) -> str:
    folder = tmp_path_factory.mktemp("model")
    return make_model(folder)


@pytest.fixture(scope="session")
def data(tmp_path_factory: Any) -> str:
    return write_rows(tmp_path_factory.mktemp("data") / "rows.jsonl", task_rows(40, 1))


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: Any) -> Callable[..., Any]:
    """Makes workers that keep their runs in the test's own folder."""
    from cjm_worker.testing import LocalWorker
    from qlora_trainer.capability import QloraTrainer

    monkeypatch.setenv("CAPABILITY_DATA_DIR", str(tmp_path / "data"))

    def make(config: Optional[Mapping[str, Any]] = None) -> LocalWorker:
        return LocalWorker(QloraTrainer, {"device": "cpu", "threads": 1, **(config or {})})

    return make
