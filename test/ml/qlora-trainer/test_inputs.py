"""Every bad input is one typed error, before any step."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from conftest import SETTINGS
from tiny import chat, make_model, make_tokenizer, task_rows, write_rows


class Refusals:
    """Asks for a training that must be refused, and gives the error."""

    def __init__(self, worker: Any, model: str, data: str, folder: Path) -> None:
        self.trainer = worker()
        self.model, self.data, self.folder = model, data, folder

    def __call__(self, **changed: Any) -> Dict[str, Any]:
        from cjm_worker.testing import CallFailed

        settings = {**SETTINGS, **changed.pop("settings", {})}
        inputs = {"model": self.model, "dataset": self.data, "settings": settings, **changed}
        with pytest.raises(CallFailed) as failed:
            self.trainer.run("train", **inputs)
        assert not [f for f in self.trainer.sink.of("progress") if "step " in f["message"]]
        return failed.value.error

    def rows(self, rows: List[Any]) -> str:
        return write_rows(self.folder / "rows.jsonl", rows)


@pytest.fixture
def refused(worker: Any, model: str, data: str, tmp_path: Path) -> Refusals:
    return Refusals(worker, model, data, tmp_path)


def _no_folder(refused: Refusals) -> Dict[str, Any]:
    return refused(model="/nowhere/at-all")


def _no_model(refused: Refusals) -> Dict[str, Any]:
    (refused.folder / "empty").mkdir()
    return refused(model=str(refused.folder / "empty"))


def _no_weights(refused: Refusals) -> Dict[str, Any]:
    copy = refused.folder / "copy"
    shutil.copytree(refused.model, copy)
    (copy / "model.safetensors").unlink()
    return refused(model=str(copy))


def _no_language_model(refused: Refusals) -> Dict[str, Any]:
    copy = refused.folder / "copy"
    shutil.copytree(refused.model, copy)
    (copy / "config.json").write_text('{"model_type": "nothing-known"}')
    return refused(model=str(copy))


def _no_template(refused: Refusals) -> Dict[str, Any]:
    copy = refused.folder / "copy"
    shutil.copytree(refused.model, copy)
    make_tokenizer(copy, "")
    (copy / "chat_template.jinja").unlink(missing_ok=True)
    return refused(model=str(copy))


def _empty(refused: Refusals) -> Dict[str, Any]:
    return refused(dataset=refused.rows([]))


def _all_too_long(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"max_length": 8})


def _nothing_to_learn(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"max_length": 8, "over_length": "truncate"})


def _too_long_named(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"max_length": 8, "over_length": "error"})


def _rank(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"rank": 40})


def _targets(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"targets": ["q_proj", "query_key_value"]})


def _no_adapter(refused: Refusals) -> Dict[str, Any]:
    return refused(adapter=str(refused.folder))


def _paged(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"optimizer": "paged_adamw_8bit"})


def _run_name(refused: Refusals) -> Dict[str, Any]:
    return refused(run="../elsewhere")


def _unknown_setting(refused: Refusals) -> Dict[str, Any]:
    return refused(settings={"learning_rte": 1e-4, "rank": 0})


def _shape(refused: Refusals) -> Dict[str, Any]:
    odd = refused.folder / "odd"
    return refused(model=make_model(odd, hidden_size=96, num_attention_heads=4))


CASES: Dict[str, Any] = {
    "no model folder": (_no_folder, "no model folder"),
    "not a model": (_no_model, "no config.json"),
    "a model without weights": (_no_weights, "no .safetensors weights"),
    "an unknown architecture": (_no_language_model, "is not a model"),
    "a tokenizer without a template": (_no_template, "no chat template"),
    "an empty data set": (_empty, "has no rows"),
    "only rows that are too long": (_all_too_long, "nothing to learn is left"),
    "rows of which truncation leaves no answer": (_nothing_to_learn, "nothing to learn is left"),
    "rows that are too long, by line": (_too_long_named, "line 1: has "),
    "a rank larger than a layer": (_rank, "rank 40 is larger than"),
    "unknown modules": (_targets, "query_key_value; it has down_proj, gate_proj, k_proj"),
    "a folder that is no adapter": (_no_adapter, "no adapter at"),
    "an optimizer for GPUs": (_paged, "adamw_8bit"),
    "a run outside its folder": (_run_name, "no name for a run"),
    "unknown settings, all at once": (_unknown_setting, "learning_rte"),
    "a shape the kernel gets wrong": (_shape, "no multiple of 64"),
}


@pytest.mark.parametrize("name", CASES)
def test_refuses(refused: Refusals, name: str) -> None:
    ask: Callable[[Refusals], Dict[str, Any]] = CASES[name][0]
    error = ask(refused)
    assert error["category"] == "user_input"
    assert CASES[name][1] in error["message"]
    assert error["fields_invalid"]


def test_every_bad_row_is_named_by_its_line(refused: Refusals, tmp_path: Path) -> None:
    good = json.dumps(chat("q", "a"))
    lines = [
        good,
        "{not json",
        "",
        '"text"',
        '{"messages": [{"role": "user", "content": 1}]}',
        '{"messages": [{"role": "user", "content": "only a question"}]}',
        '{"prompt": "p", "completion": ""}',
        '{"question": "q"}',
        good,
    ]
    path = tmp_path / "bad.jsonl"
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff"}\n')
    message = refused(dataset=str(path))["message"]
    assert "7 bad rows" in message
    for line in (2, 4, 5, 6, 7, 8, 10):
        assert f"line {line}: " in message
    assert "line 6: has no assistant message" in message
    assert "line 8: has neither messages" in message


def test_two_runs_never_share_a_folder(refused: Refusals, worker: Any, tmp_path: Path) -> None:
    from qlora_trainer.checkpoints import RunFolder

    with RunFolder(tmp_path / "data" / "runs" / "taken"):
        assert "another call works on the run taken" in refused(run="taken")["message"]
    inputs = {"model": refused.model, "dataset": refused.data, "settings": SETTINGS}
    worker().run("train", run="done", **inputs)
    assert "there is a run done already" in refused(run="done")["message"]


def test_a_full_disk_is_known_before_the_first_step(model: str, data: str, tmp_path: Path) -> None:
    """On a small disk of its own, in a mount namespace that ends with the process."""
    runs = tmp_path / "small-disk"
    runs.mkdir()
    mounted = 'mount -t tmpfs -o size=64k tmpfs "$1" && shift && exec "$@"'
    program = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("full_disk.py"))]
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh", str(runs)]
        + [*program, model, data, str(runs)],
        capture_output=True,
        text=True,
        check=True,
    )
    printed = json.loads(done.stdout.splitlines()[-1])
    assert printed["steps"] == []
    assert "MB are free" in printed["error"]["message"]
    assert printed["error"]["category"] == "resource"
    assert printed["error"]["resource_shortfall"]["resource"] == "disk_mb"


def test_a_warm_start_needs_its_own_base_rank_and_bytes(
    refused: Refusals, worker: Any, tmp_path: Path
) -> None:
    inputs = {"model": refused.model, "dataset": refused.data, "settings": SETTINGS}
    done = worker().run("train", **inputs)
    adapter = done["adapter"]["data"]["path"]
    other = make_model(tmp_path / "other", seed=7)
    assert "trained on another base" in refused(adapter=adapter, model=other)["message"]
    assert "rank is 4" in refused(adapter=adapter, settings={"rank": 8})["message"]
    warm = worker().run("train", adapter=adapter, **inputs)
    assert warm["first_loss"] < done["first_loss"]
    weights = Path(adapter) / "adapter_model.safetensors"
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    assert "its card says" in refused(adapter=adapter)["message"]


def test_resume_knows_its_run_and_its_data(worker: Any, model: str, tmp_path: Path) -> None:
    from cjm_worker.testing import CallFailed
    from kills import train_until

    rows = write_rows(tmp_path / "rows.jsonl", task_rows(20, 3))
    inputs = {"model": model, "dataset": rows, "settings": SETTINGS, "run": "mine"}
    assert train_until(("optimizer", 4), lambda: worker().run("train", **inputs))
    write_rows(tmp_path / "rows.jsonl", task_rows(20, 4))
    with pytest.raises(CallFailed, match="data_sha256 differ"):
        worker().run("resume", run="mine")
    with pytest.raises(CallFailed, match="no run theirs; there are mine"):
        worker().run("resume", run="theirs")
