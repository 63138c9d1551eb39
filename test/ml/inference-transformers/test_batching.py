"""Many texts at once: each is what it would be alone."""

import json
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from conftest import ask, at_once, engine_of, question


def requests(tiny: Any) -> List[Dict[str, Any]]:
    """32 calls that have little in common: lengths, adapters, seeds, constraints."""
    things = ["sky", "grass", "snow", "blood", "coal", "lemon"]
    swapped, polite = {"path": tiny["swapped"]}, {"path": tiny["polite"]}
    kinds: List[Dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 0, "adapters": [swapped]},
        {"temperature": 0, "adapters": [polite]},
        {"temperature": 1.5, "seed": 11},
        {"temperature": 1.5, "seed": 12, "adapters": [swapped], "top_p": 0.9},
        {"temperature": 0, "adapters": [{**swapped, "scale": 0.5}, {**polite, "scale": 0.5}]},
        {"temperature": 0, "json_schema": {"type": "object", "required": ["a"]}},
        {"temperature": 0, "stop": " se", "repetition_penalty": 1.01},
    ]
    made = []
    for place in range(32):
        text = "Count." if place % 8 in (0, 7) else question(things[place % 6])
        fields = {"max_tokens": 8 + place * 2, "logprobs": 0, **kinds[place % 8]}
        made.append({"messages": ask(text), **fields})
    return made


def said(result: Dict[str, Any]) -> Any:
    tokens = [entry["token_id"] for entry in result["logprobs"]]
    return result["text"], result["finish_reason"], tokens


def streamed(local: Any, request: Dict[str, Any]) -> Any:
    chunks = local.run("stream", **request)
    result = chunks[-1]["result"]
    assert "".join(chunk["text"] for chunk in chunks[:-1]) == result["text"]
    return said(result)


def test_32_streams_at_once_lose_and_mix_nothing(worker: Any, tiny: Any) -> None:
    local = worker({"prefill_chunk": 24})
    wanted = requests(tiny)
    alone = [said(local.run("chat", **request)) for request in wanted]
    assert len({json.dumps(result) for result in alone}) > 20
    runner = engine_of(local).loaded.runner
    rows: List[int] = []
    forward = runner._forward
    runner._forward = lambda i, c: (rows.append(len(i["input_ids"])), forward(i, c))[1]
    jobs: List[Callable[[], Any]] = [
        lambda request=request: streamed(local, request)  # type: ignore[misc]
        for request in wanted
    ]
    assert at_once(jobs) == alone
    assert max(rows) > 4
    assert (runner.active, runner.waiting) == (0, 0)


def test_slots_bound_the_batch_and_nobody_starves(worker: Any, tiny: Any) -> None:
    local = worker({"parallel": 3})
    runner_rows: List[int] = []
    wanted = [{**request, "max_tokens": 12} for request in requests(tiny)[:12]]
    alone = [said(local.run("chat", **request)) for request in wanted]
    runner = engine_of(local).loaded.runner
    take = runner._take
    runner._take = lambda rows, logits: (runner_rows.append(runner.active), take(rows, logits))
    jobs = [lambda r=r: said(local.run("chat", **r)) for r in wanted]  # type: ignore[misc]
    assert at_once(jobs) == alone
    assert max(runner_rows) == 3


def test_abort_frees_the_slot_while_others_go_on(worker: Any) -> None:
    from cjm_worker.testing import CallFailed

    local = worker({"parallel": 2})
    endless = {"messages": ask("Count."), "temperature": 0, "max_tokens": 900}
    alone = local.run("chat", **endless)["text"]
    runner = engine_of(local).loaded.runner
    going, reached = threading.Event(), threading.Event()
    step = runner._write

    def stepping() -> None:
        step()
        if runner.active == 2:
            going.set()

    runner._write = stepping
    outcome: List[Any] = []

    def doomed() -> None:
        try:
            local.run("chat", envelope={"job_id": "doomed"}, **endless)
        except CallFailed as failed:
            outcome.append(failed.error["code"])
        reached.set()

    other: List[Any] = []
    threads = [
        threading.Thread(target=doomed),
        threading.Thread(target=lambda: other.append(local.run("chat", **endless)["text"])),
    ]
    for thread in threads:
        thread.start()
    assert going.wait(20)
    assert local.post("/cancel", {"job_id": "doomed"})["calls"] == 1
    assert reached.wait(20)
    # A third call gets the slot while the second still runs.
    assert local.run("chat", **{**endless, "max_tokens": 2})["usage"]["completion_tokens"] == 2
    for thread in threads:
        thread.join()
    assert outcome == ["CAPABILITY_CANCELLED"] and other == [alone]
    assert runner.active == 0


def test_leaving_a_stream_ends_its_generation(worker: Any) -> None:
    local = worker()
    body = {"kwargs": {"action": "stream", "messages": ask("Count."), "max_tokens": 900}}
    lines = local.request("POST", "/execute_stream", body).body
    iterator = iter(lines)
    for _ in range(3):
        next(iterator)
    lines.close()
    runner = engine_of(local).loaded.runner
    runner.command(lambda: None).result()
    # What was cancelled before a command is gone after the pass that follows it.
    assert runner.command(lambda: runner.active).result() == 0


def test_a_failing_pass_fails_its_texts_and_no_others(worker: Any) -> None:
    from cjm_worker.testing import CallFailed

    local = worker()
    request = {"messages": ask("Count."), "temperature": 0, "max_tokens": 5}
    expected = local.run("chat", **request)["text"]
    runner = engine_of(local).loaded.runner
    forward = runner._forward

    def broken(inputs: Any, cache: Any) -> Any:
        runner._forward = forward
        raise RuntimeError("CUDA error: out of memory")

    runner._forward = broken
    with pytest.raises(CallFailed) as failed:
        local.run("chat", **request)
    assert failed.value.error["code"] == "CAPABILITY_RESOURCE"
    assert local.run("chat", **request)["text"] == expected


def other_architecture(kind: str, tiny: Any, folder: Path) -> str:
    """A random model of another kind with the tiny one's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny["base"])
    common: Dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    more: Dict[str, Dict[str, Any]] = {
        "mistral": {"sliding_window": 8},
        "gemma3_text": {
            "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention"],
        },
        "qwen3_next": {
            "layer_types": ["linear_attention", "full_attention"],
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 2,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    }
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **common, **more[kind])
    model = AutoModelForCausalLM.from_config(config)
    # Spread the logits, so that rounding does not decide between tokens.
    model.get_output_embeddings().weight.data.mul_(30)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "shares"), [("mistral", True), ("gemma3_text", True), ("qwen3_next", False)]
)
def test_other_architectures_give_what_generate_gives(
    worker: Any, tiny: Any, tmp_path: Path, kind: str, shares: bool
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = other_architecture(kind, tiny, tmp_path / kind)
    local = worker({"model": folder, "prefill_chunk": 16})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompts = ["The sky is one two three four five six", "ab", "What colour is coal, then? And"]
    expected = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        with torch.inference_mode():
            out = model.generate(ids, max_new_tokens=24, do_sample=False)
        expected.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    jobs = [
        lambda p=p: local.run("generate", prompt=p, temperature=0, max_tokens=24)["text"]  # type: ignore[misc]
        for p in prompts
    ]
    assert at_once(jobs) == expected
    assert engine_of(local).loaded.runner.shares is shares
