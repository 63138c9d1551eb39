"""Adapters: applied as peft applies them, to the calls that ask for them and to no others."""

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import pytest

from conftest import ask, at_once, colour, engine_of, question


def logits(local: Any, applied: Any = ()) -> Any:
    model = engine_of(local).loaded
    ids = model.prompts.encode("The sky is blue. What colour is coal?")
    return model.ask(lambda: model.runner.logprobs(ids, tuple(applied)))


def copy_of(adapter: str, folder: Path, **changes: Any) -> str:
    shutil.copytree(adapter, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return str(folder)


def failure(local: Any, action: str, **given: Any) -> Dict[str, Any]:
    from cjm_worker.testing import CallFailed

    with pytest.raises(CallFailed) as failed:
        local.run(action, **given)
    error: Dict[str, Any] = dict(failed.value.error)
    # What no schema lets through has no reason of its own.
    reason = error.setdefault("reason", "")
    assert error["message"].startswith(f"{reason}: " if reason else "")
    return error


def test_an_adapter_adds_what_peft_adds(worker: Any, tiny: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    local = worker()
    one = local.run("load_adapter", id="one", path=tiny["swapped"])["adapter"]
    two = local.run("load_adapter", id="two", path=tiny["polite"])["adapter"]
    model = engine_of(local).loaded
    ids = torch.tensor([model.prompts.encode("The sky is blue. What colour is coal?")])

    def by_peft(weights: List[float]) -> Any:
        base = AutoModelForCausalLM.from_pretrained(tiny["base"])
        adapted = PeftModel.from_pretrained(base, tiny["swapped"], adapter_name="one")
        adapted.load_adapter(tiny["polite"], adapter_name="two")
        adapted.add_weighted_adapter(["one", "two"], weights, "both", combination_type="cat")
        adapted.set_adapter("both")
        with torch.inference_mode():
            return adapted(ids).logits[0].log_softmax(-1)

    for weights in ([1.0, 0.0], [0.0, 1.0], [0.7, 0.4], [1.0, -0.5]):
        applied = tuple(zip((one["sha256"], two["sha256"]), weights))
        assert torch.allclose(logits(local, applied), by_peft(weights), atol=2e-4)


def test_after_unloading_the_base_answers_as_before(worker: Any, tiny: Any) -> None:
    import torch

    local = worker()
    assert colour(local) == "The sky is blue."
    before = logits(local)
    first = local.run("load_adapter", id="first", path=tiny["swapped"])
    local.run("load_adapter", id="second", path=tiny["polite"])
    assert first["effect"] > 1
    assert torch.equal(logits(local), before)
    assert not torch.allclose(logits(local, [(first["adapter"]["sha256"], 1.0)]), before, atol=0.1)
    assert colour(local, adapters=[{"id": "first"}]) == "The sky is green."
    unloaded = local.run("unload_adapter", id="first")
    assert unloaded == {"id": "first", "sha256": first["adapter"]["sha256"], "held": ""}
    assert torch.equal(logits(local), before)
    assert failure(local, "chat", messages=ask("x"), adapters=[{"id": "first"}])["reason"] == (
        "adapter_unknown"
    )
    assert colour(local, adapters=[{"id": "second"}]) == "blue, merci beaucoup!"
    local.run("unload_adapter", id="second")
    assert torch.equal(logits(local), before)
    names = [type(module).__module__ for module in engine_of(local).loaded.model.modules()]
    assert not any(name.startswith("peft") for name in names)
    assert failure(local, "unload_adapter", id="second")["reason"] == "adapter_unknown"
    local.run("load_adapter", id="first", path=tiny["swapped"])
    assert colour(local, adapters=[{"id": "first"}]) == "The sky is green."


def test_calls_on_different_adapters_at_once_do_not_mix(worker: Any, tiny: Any) -> None:
    local = worker()
    local.run("load_adapter", id="swapped", path=tiny["swapped"])
    things = ["sky", "grass", "snow", "blood", "coal", "lemon"]
    kinds: List[List[Dict[str, Any]]] = [
        [],
        [{"id": "swapped"}],
        [{"path": tiny["polite"]}],
        [{"id": "swapped", "scale": 0.0}],
    ]
    wanted = [(thing, kind) for thing in things for kind in kinds]
    alone = [colour(local, thing, adapters=kind) for thing, kind in wanted]
    assert len(set(alone)) == 18
    jobs = [lambda t=t, k=k: colour(local, t, adapters=k) for t, k in wanted]  # type: ignore[misc]
    for _ in range(3):
        assert at_once(jobs) == alone


def test_loading_and_unloading_while_texts_are_made(worker: Any, tiny: Any) -> None:
    local = worker()
    polite = {"path": tiny["polite"]}
    alone = local.run(
        "chat", messages=ask("Count."), temperature=0, max_tokens=150, adapters=[polite]
    )["text"]

    def churn() -> None:
        for _ in range(6):
            local.run("load_adapter", id="swapped", path=tiny["swapped"])
            assert colour(local, adapters=[{"id": "swapped"}]) == "The sky is green."
            local.run("unload_adapter", id="swapped")

    def write() -> str:
        given = {"temperature": 0, "max_tokens": 150, "adapters": [polite]}
        text: str = local.run("chat", messages=ask("Count."), **given)["text"]
        return text

    assert at_once([churn, write, write])[1:] == [alone, alone]


def test_100_first_calls_with_one_adapter_load_it_once(worker: Any, tiny: Any) -> None:
    local = worker()
    use = [{"path": tiny["swapped"]}]
    answers = at_once([lambda: colour(local, adapters=use)] * 100)
    assert set(answers) == {"The sky is green."}
    assert (engine_of(local).loads, engine_of(local).loaded.attached) == (1, 1)


def test_a_result_names_what_was_applied_and_what_it_changed(worker: Any, tiny: Any) -> None:
    from cjm_worker import DirRef
    from cjm_worker.schema import to_plain

    local = worker()
    reference = DirRef.of(tiny["swapped"])
    given = {"messages": ask(question("sky")), "temperature": 0}
    done = local.run("chat", **given, adapters=[{"path": to_plain(reference), "scale": 0.5}])
    digest = reference.sha256
    assert done["adapters"] == [{"id": digest[7:19], "sha256": digest, "scale": 0.5}]
    assert done["evidence"]["adapter_effect"] > 0.1
    full = local.run("chat", **given, adapters=[{"path": tiny["swapped"]}])
    assert full["evidence"]["adapter_effect"] != done["evidence"]["adapter_effect"]
    none = local.run("chat", **given, adapters=[{"path": tiny["swapped"], "scale": 0}])
    assert none["evidence"]["adapter_effect"] == 0
    assert local.run("chat", **given)["evidence"]["adapter_effect"] is None
    applied = [f for f in local.sink.of("account") if f["event_type"] == "adapters_applied"]
    assert applied[0]["payload"]["adapters"][0]["sha256"] == digest


def test_names(worker: Any, tiny: Any) -> None:
    local = worker()
    assert local.run("list_adapters") == {"adapters": []}
    info = local.run("load_adapter", id="a", path=tiny["swapped"])["adapter"]
    assert local.run("load_adapter", id="a", path=tiny["swapped"])["adapter"] == info
    assert (info["format"], info["rank"], info["alpha"], info["base_model"]) == (
        "peft",
        4,
        16.0,
        "base",
    )
    taken = failure(local, "load_adapter", id="a", path=tiny["polite"])
    assert (taken["reason"], taken["fields_invalid"]) == ("adapter_id_taken", ["id"])
    local.run("load_adapter", id="b", path=tiny["swapped"])
    assert [item["id"] for item in local.run("list_adapters")["adapters"]] == ["a", "b"]
    assert "b" in local.run("unload_adapter", id="a")["held"]
    assert colour(local, adapters=[{"id": "b"}]) == "The sky is green."
    assert failure(local, "load_adapter", id="../x", path=tiny["polite"])["fields_invalid"] == [
        "id"
    ]


def test_a_wrong_hash_is_refused(worker: Any, tiny: Any) -> None:
    from cjm_worker import DirRef
    from cjm_worker.schema import to_plain

    local = worker()
    wrong = "sha256:" + "0" * 64
    path = tiny["swapped"]
    assert failure(local, "load_adapter", id="a", path=path, sha256=wrong)["reason"] == (
        "adapter_hash"
    )
    lying = to_plain(DirRef.of(path))
    lying["data"]["sha256"] = wrong
    for use in ({"path": path, "sha256": wrong}, {"path": lying}):
        error = failure(local, "chat", messages=ask("x"), adapters=[use])
        assert (error["reason"], error["fields_invalid"]) == ("adapter_hash", ["adapters[0]"])
    local.run("load_adapter", id="a", path=path)
    assert failure(local, "chat", messages=ask("x"), adapters=[{"id": "a", "sha256": wrong}])[
        "reason"
    ] == ("adapter_hash")


def test_what_changed_on_disk_is_not_what_was_named(worker: Any, tiny: Any, tmp_path: Path) -> None:
    local = worker()
    folder = Path(copy_of(tiny["swapped"], tmp_path / "adapter"))
    local.run("load_adapter", id="a", path=str(folder))
    local.post("/release", {"level": "unload"})
    shutil.copyfile(Path(tiny["polite"]) / "adapter_config.json", folder / "adapter_config.json")
    error = failure(local, "chat", messages=ask("x"), adapters=[{"id": "a"}])
    assert error["reason"] == "adapter_hash"
    assert colour(local) == "The sky is blue."


def test_an_adapter_of_another_base_is_refused(worker: Any, tiny: Any, tmp_path: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    local = worker()
    before = (colour(local), logits(local))
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    other = LlamaForCausalLM(LlamaConfig(vocab_size=64, num_hidden_layers=1, **shape))
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    get_peft_model(other, config).save_pretrained(tmp_path / "small")
    trained = copy_of(tiny["swapped"], tmp_path / "carded")
    (Path(trained) / "training.json").write_text(json.dumps({"model_sha256": "sha256:" + "1" * 64}))
    for path in (str(tmp_path / "small"), trained):
        error = failure(local, "chat", messages=ask("x"), adapters=[{"path": path}])
        assert error["reason"] == "adapter_mismatch"
        assert failure(local, "load_adapter", id="a", path=path)["reason"] == "adapter_mismatch"
    assert local.run("list_adapters") == {"adapters": []}
    assert colour(local) == before[0] and torch.equal(logits(local), before[1])


def test_what_cannot_be_applied_is_refused_by_name(worker: Any, tiny: Any, tmp_path: Path) -> None:
    local = worker()
    torn = Path(copy_of(tiny["swapped"], tmp_path / "torn"))
    weights = torn / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    empty = tmp_path / "empty"
    empty.mkdir()
    file = tmp_path / "adapter.gguf"
    file.write_bytes(b"GGUF")
    for path, reason, word in (
        (str(tmp_path / "nowhere"), "adapter_missing", "adapter_config.json"),
        (str(empty), "adapter_missing", "adapter_model.safetensors"),
        (str(file), "adapter_invalid", "PEFT"),
        (str(torn), "adapter_invalid", "bytes"),
        (copy_of(tiny["swapped"], tmp_path / "dora", use_dora=True), "adapter_invalid", "use_dora"),
        (copy_of(tiny["swapped"], tmp_path / "ia3", peft_type="IA3"), "adapter_invalid", "IA3"),
        (
            copy_of(tiny["swapped"], tmp_path / "head", modules_to_save=["lm_head"]),
            "adapter_invalid",
            "modules_to_save",
        ),
    ):
        error = failure(local, "chat", messages=ask("x"), adapters=[{"path": path}])
        assert error["reason"] == reason and word in error["message"]
        assert error["category"] == "user_input"
    both = failure(local, "chat", messages=ask("x"), adapters=[{"id": "a", "path": "b"}])
    assert both["fields_invalid"] == ["adapters[0]"]


def test_idle_adapters_make_room(worker: Any, tiny: Any, tmp_path: Path) -> None:
    local = worker({"max_adapters": 2})
    paths = [tiny["swapped"], tiny["polite"]]
    paths += [copy_of(tiny["swapped"], tmp_path / str(n), revision=str(n)) for n in range(3)]
    for path in [*paths, *paths]:
        expected = "merci" if path == tiny["polite"] else "The sky is green."
        assert expected in colour(local, adapters=[{"path": path}])
        assert len(engine_of(local).loaded.runner.bank.held) <= 2


def test_unloading_what_a_call_uses_waits_for_that_call(worker: Any, tiny: Any) -> None:
    import threading

    local = worker()
    local.run("load_adapter", id="a", path=tiny["polite"])
    use = {"adapters": [{"id": "a"}], "temperature": 0, "max_tokens": 200}
    alone = local.run("chat", messages=ask("Count."), **use)["text"]
    runner = engine_of(local).loaded.runner
    writing = threading.Event()
    step = runner._write_lane
    runner._write_lane = lambda lane: (writing.set(), step(lane))
    texts: List[str] = []
    thread = threading.Thread(
        target=lambda: texts.append(local.run("chat", messages=ask("Count."), **use)["text"])
    )
    thread.start()
    assert writing.wait(20)
    runner._write_lane = step
    held = local.run("unload_adapter", id="a")["held"]
    thread.join()
    assert "until" in held and texts == [alone]
    assert runner.command(lambda: runner.bank.held).result() == []
    assert colour(local) == "The sky is blue."


def test_names_outlive_a_change_of_the_configuration(worker: Any, tiny: Any) -> None:
    local = worker()
    local.run("load_adapter", id="a", path=tiny["swapped"])
    config = {"model": tiny["base"], "device": "cpu", "threads": 1, "parallel": 2}
    local.post("/reconfigure", {"new_config": config})
    assert colour(local, adapters=[{"id": "a"}]) == "The sky is green."
