"""What a run is for: lower loss, better answers, and an adapter that others can use."""

from pathlib import Path
from typing import Any, Dict

import pytest
from conftest import SETTINGS
from tiny import make_model, school, task_rows, write_rows

LEARNING: Dict[str, Any] = {
    **SETTINGS,
    "rank": 16,
    "alpha": 32,
    "dropout": 0.0,
    "batch_size": 32,
    "accumulation": 1,
    "learning_rate": 0.01,
    "max_steps": 150,
    "checkpoint_every": None,
    "scheduler": "linear",
}


@pytest.fixture(scope="module")
def schooled(tmp_path_factory: Any) -> str:
    folder = tmp_path_factory.mktemp("schooled")
    make_model(folder)
    school(folder)
    return str(folder)


@pytest.fixture(scope="module")
def learned(schooled: str, tmp_path_factory: Any) -> Dict[str, Any]:
    from cjm_worker.testing import LocalWorker
    from qlora_trainer.capability import QloraTrainer

    folder = tmp_path_factory.mktemp("learned")
    everything = task_rows(700, 11)
    questions = {row["messages"][0]["content"] for row in everything[:40]}
    # Words that are asked in the end are never shown.
    shown = [row for row in everything if row["messages"][0]["content"] not in questions]
    train = write_rows(folder / "train.jsonl", shown)
    held_out = write_rows(folder / "held-out.jsonl", everything[:40])
    trainer = LocalWorker(QloraTrainer, {"device": "cpu", "threads": 1, "runs_dir": str(folder)})
    done = trainer.run(
        "train", model=schooled, dataset=train, eval_dataset=held_out, settings=LEARNING
    )
    return {"worker": trainer, "held_out": held_out, "done": done}


def test_loss_falls_and_held_out_answers_improve(learned: Dict[str, Any], schooled: str) -> None:
    trainer, done = learned["worker"], learned["done"]
    inputs = {"model": schooled, "dataset": learned["held_out"], "settings": LEARNING}
    before = trainer.run("evaluate", answers=True, max_answer_tokens=16, **inputs)
    after = trainer.run(
        "evaluate", adapter=done["adapter"], answers=True, max_answer_tokens=16, **inputs
    )
    assert done["final_loss"] < done["first_loss"] / 2
    assert after["loss"] == pytest.approx(done["eval_loss"], rel=1e-4)
    assert before["loss"] > 2 * after["loss"]
    assert before["exact_match"] == 0.0
    print({k: (before[k], after[k]) for k in ("loss", "token_accuracy", "exact_match")})
    assert after["token_accuracy"] > before["token_accuracy"] + 0.3
    assert after["exact_match"] > 0.0


def test_plain_peft_loads_the_adapter(learned: Dict[str, Any], schooled: str) -> None:
    import torch
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    folder = Path(learned["done"]["adapter"]["data"]["path"])
    base = AutoModelForCausalLM.from_pretrained(schooled, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, folder)
    have, saved = get_peft_model_state_dict(loaded), load_file(folder / "adapter_model.safetensors")
    assert set(have) == set(saved)
    assert all(torch.equal(have[name], saved[name]) for name in saved)
    assert loaded.peft_config["default"].base_model_name_or_path == str(Path(schooled).resolve())


def test_a_merged_base_computes_what_base_and_adapter_do(
    learned: Dict[str, Any], schooled: str
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = learned["worker"].run(
        "merge_into_base", model=schooled, adapter=learned["done"]["adapter"], dtype="float32"
    )
    assert merged["merged_layers"] == 14
    assert merged["largest_difference"] < 1e-4
    folder = merged["model"]["data"]["path"]
    ids = AutoTokenizer.from_pretrained(folder)("reverse a b c", return_tensors="pt").input_ids
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(schooled, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, learned["done"]["adapter"]["data"]["path"])
    assert torch.allclose(whole(ids).logits, adapted(ids).logits, atol=1e-4)
    with adapted.disable_adapter():
        assert not torch.allclose(whole(ids).logits, adapted(ids).logits, atol=0.1)


def test_plan_says_what_train_then_does(worker: Any, model: str, data: str) -> None:
    trainer = worker()
    settings = {**SETTINGS, "max_steps": None, "epochs": 2}
    inputs = {"model": model, "dataset": data, "settings": settings}
    plan = trainer.run("plan", **inputs)
    assert (plan["rows"], plan["steps_per_epoch"], plan["steps"]) == (40, 5, 10)
    assert plan["predicted_seconds"] is None and plan["measured_runs"] == 0
    assert sum(plan["length_histogram"].values()) == 40
    done = trainer.run("train", **inputs)
    assert done["steps"] == plan["steps"]
    assert done["supervised_tokens"] == 2 * plan["supervised_tokens"]
    again = trainer.run("plan", **inputs)
    assert again["measured_runs"] == 1
    assert again["predicted_seconds"] > 0
    assert again["predicted_peak_mb"] == pytest.approx(done["peak_mb"], rel=0.1)


def test_plan_names_what_truncation_takes(worker: Any, model: str, tmp_path: Path) -> None:
    from tiny import chat

    rows = [chat("q", "a"), chat("q", "b " * 60), chat("q " * 60, "c")]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    settings = {**SETTINGS, "max_length": 48, "over_length": "truncate"}
    plan = worker().run("plan", model=model, dataset=data, settings=settings)
    assert (plan["dropped_lines"], plan["truncated_lines"]) == ([3], [2])
    assert plan["lost_tokens"] > 60
    assert plan["rows"] == 2


def test_a_run_that_stops_improving_stops(worker: Any, model: str, data: str) -> None:
    settings = {
        **SETTINGS,
        "max_steps": 50,
        "learning_rate": 1e-9,
        "eval_split": 0.2,
        "eval_every": 1,
        "early_stop_patience": 3,
        "early_stop_min_delta": 0.01,
    }
    done = worker().run("train", model=model, dataset=data, settings=settings)
    assert done["stopped_early"] and done["steps"] == 4


def test_a_diverging_run_is_ended(worker: Any, schooled: str, data: str) -> None:
    from cjm_worker.testing import CallFailed

    settings = {
        **SETTINGS,
        "max_steps": 30,
        "learning_rate": 1.0,
        "max_grad_norm": 1e9,
        "watchdog_factor": 1.2,
        "warmup_ratio": 0,
    }
    with pytest.raises(CallFailed, match="training diverged at step") as failed:
        worker().run("train", model=schooled, dataset=data, settings=settings)
    assert failed.value.error["category"] == "fatal"


def test_a_trajectory_of_the_original_trains(worker: Any, model: str, tmp_path: Path) -> None:
    import json

    steps = [
        {"generated_code": "wrong", "tests_passed": False},
        {"generated_code": "print(1)", "tests_passed": True},
    ]
    session = {"session_id": "s", "task_description": "print one", "steps": steps}
    for name, outcome in (("good", "success"), ("bad", "exhausted")):
        (tmp_path / f"{name}.json").write_text(json.dumps({**session, "outcome": outcome}))
    settings = {**SETTINGS, "max_length": 256}
    plan = worker().run("plan", model=model, dataset=str(tmp_path), settings=settings)
    assert plan["rows"] == 1
    assert plan["warnings"] == ["passed over 1 trajectories that did not succeed"]


def test_release_gives_a_kept_base_back(worker: Any, model: str, data: str) -> None:
    trainer = worker({"keep_base": True})
    inputs = {"model": model, "dataset": data, "settings": SETTINGS}
    first = trainer.run("train", **inputs)
    second = trainer.run("train", **inputs)
    assert first["weights_sha256"] == second["weights_sha256"]
    assert trainer.worker.capability._base is not None
    reply = trainer.post("/release", {"level": "unload"})
    assert reply["status"] == "released" and reply["freed_mb"] >= 0
    assert trainer.worker.capability._base is None
