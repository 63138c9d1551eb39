"""Every parameter of the task is honoured; what is not one is refused by name."""

import json
from typing import Any, Dict, List

import pytest

from conftest import ROOT, ask, colour, question

#: Hot enough that what is drawn differs from what is likeliest.
HOT = {"temperature": 6, "max_tokens": 16}


def run(shared: Any, text: str = "Count.", **fields: Any) -> Dict[str, Any]:
    result: Dict[str, Any] = shared.run("chat", messages=ask(text), **fields)
    return result


def test_the_schema_has_every_field_of_the_task(shared: Any) -> None:
    import re

    source = (ROOT / "workers/inference/task/parameters.ts").read_text(encoding="utf-8")
    listed = re.search(r"PARAMETER_NAMES = \[(.*?)\]", source, re.DOTALL)
    assert listed
    names = set(re.findall(r'"(\w+)"', listed[1])) | {"context_overflow"}
    for action, own in (
        ("generate", {"prompt"}),
        ("chat", {"messages"}),
        ("stream", {"prompt", "messages"}),
    ):
        schema = shared.worker.actions[action].input_schema
        assert set(schema["properties"]) == names | own


@pytest.mark.parametrize("method", ["generate", "chat", "stream"])
def test_what_is_no_parameter_is_refused_by_name(shared: Any, method: str) -> None:
    given: Dict[str, Any] = {"messages": ask("x")} if method == "chat" else {"prompt": "x"}
    wrong = {"mirostat": 1, "top_p": 0, "temperature": "hot"}
    route = "/execute_stream" if method == "stream" else "/execute"
    answer = shared.request("POST", route, {"kwargs": {"action": method, **given, **wrong}})
    error = json.loads(answer.body)["_job_error"]
    assert (answer.status, error["code"]) == (400, "CAPABILITY_INPUT")
    assert sorted(error["fields_invalid"]) == ["mirostat", "temperature", "top_p"]


def test_neutral_values_change_nothing(shared: Any) -> None:
    neutral = {
        "top_p": 1,
        "top_k": 0,
        "min_p": 0,
        "repetition_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }
    bare = run(shared, temperature=1, seed=5, max_tokens=12)
    assert run(shared, temperature=1, seed=5, max_tokens=12, **neutral)["text"] == bare["text"]


def test_temperature(shared: Any) -> None:
    greedy = run(shared, temperature=0, max_tokens=16)
    assert greedy["text"].startswith("one two three")
    assert greedy["seed"] is None
    assert run(shared, **HOT, seed=1)["text"] != greedy["text"]


@pytest.mark.parametrize("field", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}])
def test_filters_that_leave_one_token_leave_the_likeliest(shared: Any, field: Any) -> None:
    greedy = run(shared, temperature=0, max_tokens=16)["text"]
    assert run(shared, **HOT, **field)["text"] == greedy


def test_seed(shared: Any) -> None:
    texts = [run(shared, **HOT, seed=seed)["text"] for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]
    drawn = run(shared, **HOT)
    assert run(shared, **HOT, seed=drawn["seed"])["text"] == drawn["text"]


def test_penalties(shared: Any) -> None:
    bare = run(shared, temperature=0, max_tokens=60)["text"]
    for field in (
        {"repetition_penalty": 10},
        {"presence_penalty": 2, "frequency_penalty": 2},
        {"frequency_penalty": 2},
    ):
        assert run(shared, temperature=0, max_tokens=60, **field)["text"] != bare


@pytest.mark.parametrize(
    ("stop", "text", "reached"),
    [
        ("ee f", "one two thr", "ee f"),
        ([" four", "o t"], "one tw", "o t"),
        ("never", None, None),
    ],
)
def test_stop(shared: Any, stop: Any, text: Any, reached: Any) -> None:
    done = run(shared, temperature=0, max_tokens=20, stop=stop)
    chunks = shared.run("stream", messages=ask("Count."), temperature=0, max_tokens=20, stop=stop)
    assert done["stop_sequence"] == reached
    assert done["finish_reason"] == ("stop_sequence" if reached else "length")
    if text is not None:
        assert done["text"] == text
    assert "".join(chunk["text"] for chunk in chunks[:-1]) == done["text"]
    assert chunks[-1]["result"]["text"] == done["text"]


def test_max_tokens_and_usage(shared: Any) -> None:
    done = run(shared, temperature=0, max_tokens=5)
    assert done["finish_reason"] == "length"
    usage = done["usage"]
    assert usage["completion_tokens"] == 5
    assert usage["prompt_tokens"] + 5 == usage["total_tokens"]
    assert usage["cached_prompt_tokens"] == 0
    ended = run(shared, question("sky"), temperature=0)
    assert ended["finish_reason"] == "stop"
    assert ended["timings"]["tokens_per_second"] > 0


def test_logprobs_are_the_models_own(shared: Any, tiny: Any) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    done = run(
        shared, question("sky"), temperature=2, seed=3, top_k=3, repetition_penalty=1.5, logprobs=4
    )
    tokenizer = AutoTokenizer.from_pretrained(tiny["base"])
    model = AutoModelForCausalLM.from_pretrained(tiny["base"])
    prompt = tokenizer.apply_chat_template(
        ask(question("sky")), add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(prompt, add_special_tokens=False).input_ids
    chosen = [entry["token_id"] for entry in done["logprobs"]]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids + chosen])).logits[0].log_softmax(-1)
    for place, entry in enumerate(done["logprobs"]):
        row = expected[len(ids) - 1 + place]
        assert entry["logprob"] == pytest.approx(float(row[entry["token_id"]]), abs=1e-4)
        best = row.topk(4)
        assert [top["token_id"] for top in entry["top"]] == best.indices.tolist()
        assert [top["logprob"] for top in entry["top"]] == pytest.approx(
            best.values.tolist(), abs=1e-4
        )
    assert run(shared, max_tokens=2)["logprobs"] is None
    assert [entry["top"] for entry in run(shared, max_tokens=2, logprobs=0)["logprobs"]] == [[], []]


def test_logprobs_stream_one_per_token(shared: Any) -> None:
    chunks = shared.run("stream", messages=ask("Greet me."), temperature=0, logprobs=2)
    streamed = [entry for chunk in chunks[:-1] for entry in chunk.get("logprobs", [])]
    assert streamed == chunks[-1]["result"]["logprobs"]
    assert all("\ufffd" not in chunk["text"] for chunk in chunks[:-1])
    assert chunks[-1]["result"]["text"] == "Ça va très bien, \U0001f642 merci beaucoup!"


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_json_schema(shared: Any, seed: int) -> None:
    done = run(shared, "Describe sky as JSON.", temperature=2, seed=seed, json_schema=SCHEMA)
    assert done["finish_reason"] == "stop"
    found = json.loads(done["text"])
    assert list(found) == ["name", "age", "tags"]
    assert 0 <= found["age"] <= 150 and set(found["tags"]) <= {"a", "b"}


def test_grammar(shared: Any) -> None:
    import re

    grammar = 'root ::= item ("," item){2}\nitem ::= [a-c]+ "-" digit\ndigit ::= [0-9]'
    done = run(shared, temperature=2, seed=1, max_tokens=100, grammar=grammar)
    assert done["finish_reason"] in ("stop", "length")
    full = re.compile(r"[a-c]+-[0-9](,[a-c]+-[0-9]){2}")
    assert done["finish_reason"] == "length" or full.fullmatch(done["text"])
    exact = run(shared, temperature=0, grammar='root ::= "yes" | "no"')
    assert exact["text"] in ("yes", "no") and exact["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("grammar", "root ::= ("),
        ("grammar", "root ::= missing"),
        ("json_schema", {"type": "no such type"}),
        ("json_schema", {"$ref": "#/$defs/nowhere"}),
    ],
)
def test_a_bad_constraint_is_refused_by_name(shared: Any, field: str, value: Any) -> None:
    from cjm_worker.testing import CallFailed

    with pytest.raises(CallFailed, match="grammar_invalid") as failed:
        run(shared, **{field: value})
    assert failed.value.error["fields_invalid"] == [field]
    with pytest.raises(CallFailed, match="not both") as both:
        run(shared, grammar='root ::= "a"', json_schema={})
    assert both.value.error["fields_invalid"] == ["grammar"]


def test_adapters_and_their_scales(shared: Any, tiny: Any) -> None:
    assert colour(shared) == "The sky is blue."
    assert colour(shared, adapters=[{"path": tiny["swapped"]}]) == "The sky is green."
    polite = {"path": tiny["polite"]}
    assert colour(shared, adapters=[polite]) == "blue, merci beaucoup!"
    assert colour(shared, adapters=[{**polite, "scale": 0}]) == "The sky is blue."


def test_context_overflow(worker: Any) -> None:
    from cjm_worker.testing import CallFailed

    small = worker({"context": 64})
    long = {"prompt": "one two three four " * 40, "temperature": 0}
    with pytest.raises(CallFailed, match="context_overflow") as failed:
        small.run("generate", **long, max_tokens=8)
    assert failed.value.error["category"] == "user_input"
    cut = small.run("generate", **long, max_tokens=8, context_overflow="truncate")
    assert cut["usage"]["prompt_tokens"] == 56
    total = small.run("count_tokens", text=long["prompt"])["tokens"]
    assert cut["evidence"]["prompt_truncated_tokens"] == total - 56
    with pytest.raises(CallFailed, match="context_overflow"):
        small.run("generate", **long, max_tokens=64, context_overflow="truncate")
    full = small.run("generate", prompt="one two three", temperature=0, grammar='root ::= "x"{600}')
    assert full["finish_reason"] == "length" and full["usage"]["total_tokens"] == 64


def test_the_task_gives_what_the_action_gives(shared: Any) -> None:
    given: Dict[str, Any] = {"messages": ask(question("coal")), "temperature": 0}
    by_task = shared.task("text-generation", "chat", **given)
    assert by_task["text"] == shared.run("chat", **given)["text"] == "The coal is black."
    accounts: List[Any] = [a["event_type"] for a in shared.sink.of("account")]
    assert "task_account" in accounts
