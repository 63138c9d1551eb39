"""Loading once, giving back what was taken, and failing clearly."""

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any, Dict

import pytest

from conftest import ask, at_once, colour, engine_of


def copied(model: str, folder: Path) -> Path:
    shutil.copytree(model, folder)
    return folder


@pytest.fixture(scope="session")
def large(tiny: Dict[str, Any], tmp_path_factory: Any) -> str:
    """A random model of 64 MB: enough that memory can be measured."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("large")
    tokenizer = AutoTokenizer.from_pretrained(tiny["base"])
    shape = {"hidden_size": 768, "intermediate_size": 2560, "num_attention_heads": 8}
    with torch.device("meta"):
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=len(tokenizer), num_hidden_layers=2, **shape)
        )
    model = model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.01)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_100_first_calls_load_once(worker: Any) -> None:
    local = worker()
    assert set(at_once([lambda: colour(local)] * 100)) == {"The sky is blue."}
    assert engine_of(local).loads == 1


def test_prefetch_loads_with_progress(worker: Any) -> None:
    local = worker()
    assert engine_of(local).state == "unloaded"
    local.post("/prefetch")
    assert engine_of(local).state == "loaded"
    shown = [frame["progress"] for frame in local.sink.of("progress")]
    assert len(shown) > 5 and shown == sorted(shown) and shown[-1] == 1
    assert len({value for value in shown if 0.25 < value < 0.95}) > 3
    local.post("/prefetch")
    assert engine_of(local).loads == 1


def test_a_load_is_measured_by_model_and_adapters(worker: Any, tiny: Any) -> None:
    # As no other test, with which the book is shared.
    slots = 7
    local = worker({"parallel": slots})
    local.post("/prefetch")
    adapter = local.run("load_adapter", id="one", path=tiny["swapped"])["adapter"]
    local.run("load_adapter", id="again", path=tiny["swapped"])
    found = [kept for kept in local.run("profiles")["profiles"] if kept["slots"] == slots]
    assert [kept["adapters"] for kept in found] == ["", adapter["sha256"]]
    model = local.run("model_info")["sha256"]
    for kept in found:
        assert kept["model_sha256"] == model
        assert (kept["quantization"], kept["device"]) == ("float32", "cpu")
        assert kept["load_ms"] > 0 and kept["total_mb"] > kept["memory_mb"]
    # A damaged book is measured anew.
    (Path(os.environ["CAPABILITY_DATA_DIR"]) / "profiles.json").write_text("{")
    assert local.run("profiles") == {"profiles": []}


def test_a_relative_model_is_one_of_the_models_folder(
    worker: Any, tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(tiny["base"])
    monkeypatch.setenv("CJM_MODELS_DIR", str(folder.parent))
    assert worker({"model": folder.name}).run("model_info")["path"] == str(folder)


def test_unload_gives_the_models_memory_back(worker: Any, large: str) -> None:
    local = worker({"model": large})
    size = sum(file.stat().st_size for file in Path(large).glob("*.safetensors")) / 1e6
    local.run("generate", prompt="one", max_tokens=2)
    reply = local.post("/release", {"level": "unload"})
    assert reply["freed_mb"] >= 0.9 * size > 50
    assert "host memory" in reply["held"]
    assert engine_of(local).state == "unloaded"
    again = local.post("/release", {"level": "unload"})
    assert again == {"status": "released", "held": "", "freed_mb": 0}
    assert local.run("generate", prompt="one", max_tokens=2)["usage"]["completion_tokens"] == 2
    assert engine_of(local).loads == 2


def test_sleep_on_the_cpu_says_that_nothing_was_freed(worker: Any) -> None:
    from cjm_worker.testing import CallFailed

    local = worker()
    colour(local)
    reply = local.post("/release", {"level": "sleep"})
    assert "only unload" in reply["held"] and reply["freed_mb"] < 5
    assert engine_of(local).state == "loaded"
    with pytest.raises(CallFailed, match="no level deep"):
        local.post("/release", {"level": "deep"})


def test_release_waits_for_running_texts_and_new_calls_load_again(worker: Any) -> None:
    local = worker()
    request = {"messages": ask("Count."), "temperature": 0, "max_tokens": 60}
    alone = local.run("chat", **request)["text"]
    runner = engine_of(local).loaded.runner
    writing = threading.Event()
    step = runner._write_lane
    runner._write_lane = lambda lane: (writing.set(), step(lane))
    texts: Any = []
    thread = threading.Thread(target=lambda: texts.append(local.run("chat", **request)["text"]))
    thread.start()
    assert writing.wait(20)
    assert local.post("/release", {"level": "unload"})["status"] == "released"
    thread.join()
    assert texts == [alone] and local.run("chat", **request)["text"] == alone
    assert engine_of(local).loads == 2


def test_named_adapters_outlive_an_unload(worker: Any, tiny: Any) -> None:
    local = worker()
    local.run("load_adapter", id="a", path=tiny["swapped"])
    local.post("/release", {"level": "unload"})
    assert [item["id"] for item in local.run("list_adapters")["adapters"]] == ["a"]
    assert engine_of(local).state == "unloaded"
    assert colour(local, adapters=[{"id": "a"}]) == "The sky is green."


def test_an_unused_model_is_given_back(worker: Any) -> None:
    local = worker({"idle_unload_seconds": 0.05})
    assert colour(local) == "The sky is blue."
    engine = engine_of(local)
    with engine._changed:
        assert engine._changed.wait_for(lambda: engine.state == "unloaded", 20)
    assert colour(local) == "The sky is blue."
    assert engine.loads == 2


def test_a_new_model_is_loaded_in_place_of_the_old_one(worker: Any, tiny: Any, large: str) -> None:
    local = worker()
    before = colour(local)
    config = {"device": "cpu", "threads": 1}
    local.post("/reconfigure", {"new_config": {**config, "model": large}})
    assert local.run("model_info")["parameters"] > 10_000_000
    assert local.run("generate", prompt="a", max_tokens=1)["evidence"]["model_sha256"]
    local.post("/reconfigure", {"new_config": {**config, "model": tiny["base"]}})
    assert colour(local) == before


def test_describing_does_not_load(worker: Any, tiny: Any) -> None:
    local = worker()
    card = local.run("model_info")
    assert engine_of(local).state == "unloaded"
    expected = {
        "id": "base",
        "format": "safetensors",
        "architecture": "LlamaForCausalLM",
        "quantization": None,
        "context_length": 1024,
        "chat_template": True,
    }
    assert {key: card[key] for key in expected} == expected
    done = local.run("generate", prompt="a", max_tokens=1)
    assert local.run("model_info")["sha256"] == done["evidence"]["model_sha256"]
    assert card["parameters"] * 4 < card["bytes"] < card["parameters"] * 4 + 20_000


def failed_call(local: Any, **given: Any) -> Dict[str, Any]:
    from cjm_worker.testing import CallFailed

    with pytest.raises(CallFailed) as failed:
        local.run("generate", prompt="a", max_tokens=1, **given)
    return dict(failed.value.error)


def test_models_that_are_not_whole_are_refused(worker: Any, tiny: Any, tmp_path: Path) -> None:
    torn = copied(tiny["base"], tmp_path / "torn")
    weights = torn / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    garbled = copied(tiny["base"], tmp_path / "garbled")
    (garbled / "model.safetensors").write_bytes(b"nothing of the kind" * 100)
    bare = copied(tiny["base"], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    sharded = copied(tiny["base"], tmp_path / "sharded")
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    silent = copied(tiny["base"], tmp_path / "silent")
    (silent / "tokenizer.json").write_text("{")
    wider = copied(tiny["base"], tmp_path / "wider")
    config = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    empty = tmp_path / "empty"
    empty.mkdir()
    for path, reason in (
        (None, "model_missing"),
        (str(tmp_path / "nowhere"), "model_missing"),
        (str(empty), "model_invalid"),
        (str(torn), "model_invalid"),
        (str(garbled), "model_invalid"),
        (str(bare), "model_invalid"),
        (str(sharded), "model_invalid"),
        (str(silent), "model_invalid"),
        (str(wider), "model_invalid"),
    ):
        local = worker({"model": path})
        error = failed_call(local)
        assert error["code"] == "CAPABILITY_INPUT"
        assert error["reason"] == reason
        assert error["fields_invalid"] == ["model"]
        assert engine_of(local).state == "unloaded"


def test_one_failed_load_fails_all_who_waited_and_the_next_call_tries_again(
    worker: Any, tiny: Any, tmp_path: Path
) -> None:
    folder = copied(tiny["base"], tmp_path / "model")
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-10])
    local = worker({"model": str(folder)})
    errors = at_once([lambda: failed_call(local)["message"]] * 10)
    assert all("model_invalid" in message for message in errors)
    (folder / "model.safetensors").write_bytes(weights)
    assert colour(local) == "The sky is blue."


def test_a_call_cancelled_while_the_model_loads_does_not_wait_for_it(worker: Any) -> None:
    from cjm_worker.testing import CallFailed

    local = worker()
    engine = engine_of(local)
    load, entered, go = engine._load_model, threading.Event(), threading.Event()

    def slow() -> Any:
        entered.set()
        go.wait(20)
        return load()

    engine._load_model = slow
    codes: Any = []

    def doomed() -> None:
        with pytest.raises(CallFailed) as failed:
            local.run("generate", prompt="a", envelope={"job_id": "doomed"})
        codes.append(failed.value.error["code"])

    thread = threading.Thread(target=doomed)
    thread.start()
    assert entered.wait(20)
    local.post("/cancel", {"job_id": "doomed"})
    thread.join(20)
    assert codes == ["CAPABILITY_CANCELLED"]
    go.set()
    assert colour(local) == "The sky is blue."
    assert engine.loads == 1


def test_a_deadline_that_passes_ends_the_call(worker: Any) -> None:
    from cjm_worker.testing import CallFailed

    local = worker()
    colour(local)
    writing = threading.Event()
    runner = engine_of(local).loaded.runner
    step = runner._write_lane
    runner._write_lane = lambda lane: (writing.set(), step(lane))
    codes: Any = []

    def late() -> None:
        with pytest.raises(CallFailed) as failed:
            local.run("chat", messages=ask("Count."), max_tokens=900)
        codes.append(failed.value.error["code"])

    thread = threading.Thread(target=late)
    thread.start()
    assert writing.wait(20)
    # What the worker's process does when the deadline of a call passes.
    local.worker.calls.cancel_all("deadline")
    thread.join(20)
    assert codes == ["CAPABILITY_TIMEOUT"]


def test_four_bits(worker: Any, tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    whole = worker()
    small = worker({"quantization": "nf4"})
    text = "The sky is blue. What colour is coal?"
    scores = [local.run("score", prompt=text)["tokens"] for local in (whole, small)]
    layers = [type(module).__name__ for module in engine_of(small).loaded.model.modules()]
    assert layers.count("Linear4bit") > 8
    assert scores[0] != scores[1]
    for use in ([], [{"path": tiny["swapped"]}]):
        answers = at_once([lambda use=use: colour(small, adapters=use)] * 3)  # type: ignore[misc]
        assert len(set(answers)) == 1
    assert colour(small, adapters=[{"path": tiny["polite"]}]) != colour(small)


def test_cuda_where_there_is_none_is_refused(worker: Any) -> None:
    import torch

    if torch.cuda.is_available():
        return
    error = failed_call(worker({"device": "cuda"}))
    assert error["code"] == "CAPABILITY_INPUT" and error["fields_invalid"] == ["device"]
