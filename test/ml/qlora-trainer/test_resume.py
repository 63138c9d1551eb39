"""A run that was stopped anyhow and resumed equals the run that was not, to the bit."""

import json
import os
import random
from pathlib import Path
from typing import Any, Dict, List

import pytest
from conftest import SETTINGS
from kills import Moment, train_until

EVERYTHING: Dict[str, Any] = {
    **SETTINGS,
    "max_steps": 8,
    "eval_split": 0.2,
    "eval_every": 2,
    "neftune_alpha": 5,
    "packing": True,
    "scheduler": "cosine",
    "warmup_ratio": 0.2,
}


def metrics(done: Dict[str, Any]) -> List[Dict[str, Any]]:
    """The rows of a finished run, without what a clock or an allocator decides."""
    lines = Path(done["metrics"]["data"]["path"]).read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        del row["supervised_tokens_per_second"], row["peak_mb"]
    return rows


@pytest.fixture(scope="module")
def whole(model: str, data: str, tmp_path_factory: Any) -> Dict[str, Any]:
    from cjm_worker.testing import LocalWorker
    from qlora_trainer.capability import QloraTrainer

    runs = str(tmp_path_factory.mktemp("whole"))
    trainer = LocalWorker(QloraTrainer, {"device": "cpu", "threads": 1, "runs_dir": runs})
    return trainer.run("train", model=model, dataset=data, settings=EVERYTHING)


def assert_equal(done: Dict[str, Any], whole: Dict[str, Any]) -> None:
    assert metrics(done) == metrics(whole)
    assert done["weights_sha256"] == whole["weights_sha256"]


def test_the_same_run_twice_is_the_same(
    worker: Any, model: str, data: str, whole: Dict[str, Any]
) -> None:
    again = worker().run("train", model=model, dataset=data, settings=EVERYTHING)
    assert again["steps_executed"] == 8
    assert_equal(again, whole)


MOMENTS: List[Moment] = [("backward", 9), ("optimizer", 6), ("fsync", 20)]


def random_moments(count: int) -> List[Moment]:
    """Further moments, for a longer run: ``CJM_KILLS=20 pytest test_resume.py -k killed``."""
    rng = random.Random(20)
    last = {"backward": 16, "optimizer": 8, "weights": 4, "fsync": 40, "rename": 4}
    # The first two syncs are of the record that makes it a run at all.
    first = {"fsync": 3}
    every = [(place, n) for place in last for n in range(first.get(place, 1), last[place] + 1)]
    return rng.sample(every, count)


MOMENTS += random_moments(int(os.environ.get("CJM_KILLS", "0")))


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: "-".join(map(str, moment)))
def test_a_killed_run_resumes_exactly(
    worker: Any, model: str, data: str, whole: Dict[str, Any], moment: Moment
) -> None:
    inputs = {"model": model, "dataset": data, "settings": EVERYTHING, "run": "killed"}
    assert train_until(moment, lambda: worker().run("train", **inputs))
    done = worker().run("resume", run="killed")
    if moment in MOMENTS[:3]:
        assert done["resumed_from_step"] > 0
    # A run that was killed before its first checkpoint begins again.
    assert done["steps_executed"] == 8 - (done["resumed_from_step"] or 0)
    assert_equal(done, whole)


def test_a_torn_checkpoint_is_passed_over(
    worker: Any, model: str, data: str, whole: Dict[str, Any], tmp_path: Path
) -> None:
    inputs = {"model": model, "dataset": data, "settings": EVERYTHING, "run": "torn"}
    assert train_until(("optimizer", 6), lambda: worker().run("train", **inputs))
    newest = tmp_path / "data" / "runs" / "torn" / "step-00000004"
    optimizer = newest / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    done = worker().run("resume", run="torn")
    assert done["resumed_from_step"] == 2
    assert "step-00000004 is passed over: optimizer.pt" in done["warnings"][-1]
    assert_equal(done, whole)


def test_eight_bit_moments_resume_exactly(worker: Any, model: str, data: str) -> None:
    settings = {**SETTINGS, "rank": 32, "optimizer": "adamw_8bit"}
    inputs = {"model": model, "dataset": data, "settings": settings}
    whole = worker().run("train", **inputs)
    # The bitsandbytes optimizer is not torch's, so the moment is one of a checkpoint.
    assert train_until(("weights", 2), lambda: worker().run("train", run="eight", **inputs))
    done = worker().run("resume", run="eight")
    assert done["resumed_from_step"] == 2
    assert_equal(done, whole)


def test_a_retry_of_the_same_job_resumes(
    worker: Any, model: str, data: str, whole: Dict[str, Any]
) -> None:
    inputs = {"model": model, "dataset": data, "settings": EVERYTHING}
    job = {"job_id": "job-1"}
    assert train_until(("backward", 9), lambda: worker().run("train", job, **inputs))
    done = worker().run("train", job, **inputs)
    assert (done["run"], done["resumed_from_step"]) == ("job-1", 4)
    assert_equal(done, whole)


class CancelAt:
    """Cancels the running call when a progress message begins with some words."""

    def __init__(self, trainer: Any, words: str) -> None:
        self.trainer, self.words = trainer, words
        self._send = trainer.sink.send
        trainer.sink.send = self.send

    def send(self, frame: Any) -> None:
        self._send(frame)
        if frame["type"] == "progress" and frame["message"].startswith(self.words):
            self.words = "never again"
            self.trainer.post("/cancel", {})


def test_a_cancelled_run_is_on_disk_within_the_step(
    worker: Any, model: str, data: str, whole: Dict[str, Any], tmp_path: Path
) -> None:
    from cjm_worker.testing import CallFailed

    trainer = worker()
    CancelAt(trainer, "step 3/8")
    inputs = {"model": model, "dataset": data, "settings": EVERYTHING, "run": "cancelled"}
    with pytest.raises(CallFailed) as failed:
        trainer.run("train", **inputs)
    assert failed.value.error["code"] == "CAPABILITY_CANCELLED"
    assert (tmp_path / "data" / "runs" / "cancelled" / "step-00000003" / "manifest.json").exists()
    done = trainer.run("resume", run="cancelled")
    assert (done["resumed_from_step"], done["steps_executed"]) == (3, 5)
    assert_equal(done, whole)


def test_a_file_asks_for_a_checkpoint(worker: Any, model: str, data: str, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "runs" / "asked"
    folder.mkdir(parents=True)
    (folder / "checkpoint-now").touch()
    settings = {**SETTINGS, "checkpoint_every": None}
    worker().run("train", model=model, dataset=data, settings=settings, run="asked")
    assert [item.name for item in folder.glob("step-*")] == ["step-00000001"]
    assert not (folder / "checkpoint-now").exists()


def test_a_full_disk_leaves_the_checkpoint_before(
    worker: Any, model: str, data: str, whole: Dict[str, Any], tmp_path: Path
) -> None:
    """Files of this process may not grow beyond what fits before the optimizer has its moments."""
    import resource

    from cjm_worker.testing import CallFailed

    inputs = {"model": model, "dataset": data, "settings": EVERYTHING, "run": "full"}
    trainer = worker()

    def limit(size: int) -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    send = trainer.sink.send

    def full_after_four(frame: Any) -> None:
        send(frame)
        if frame["type"] == "progress" and frame["message"].startswith("step 5/8"):
            limit(20_000)

    trainer.sink.send = full_after_four
    try:
        with pytest.raises(CallFailed):
            trainer.run("train", **inputs)
    finally:
        limit(resource.RLIM_INFINITY)
    folder = tmp_path / "data" / "runs" / "full"
    names = sorted(item.name for item in folder.iterdir() if "step" in item.name)
    assert names == ["step-00000002", "step-00000004"]
    done = worker().run("resume", run="full")
    assert done["resumed_from_step"] == 4
    assert_equal(done, whole)
