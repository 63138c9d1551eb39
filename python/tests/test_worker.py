"""A capability and the calls that run on it, in this process."""

import json
import logging
import threading
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Optional, Protocol

import pytest

from cjm_worker import (
    Call,
    Capability,
    CapabilityTransientError,
    FieldOptions,
    ReleaseReply,
    TaskAdapter,
    action,
    current_call,
)
from cjm_worker.actions import actions_of
from cjm_worker.surface import missing_members, protocol_members, structural_surface
from cjm_worker.testing import CallFailed, LocalWorker


class Bare(Capability):
    """As little as possible."""

    name = "bare"
    version = "1.0.0"

    @action
    def run(self, text: str) -> str:
        return text


class Tool(Capability):
    name = "tool"
    version = "2.0.0"

    @dataclass
    class Config:
        size: int = 1
        model: str = field(default="a", metadata={"reload_trigger": "model"})
        device: str = field(default="cpu", metadata={"reload_trigger": "model"})

        def __post_init__(self) -> None:
            if self.size > 100:
                raise ValueError("size is over 100")

    def __init__(self) -> None:
        self.events: List[str] = []
        self.gate = threading.Event()

    def initialize(self, config: Config) -> None:
        self.events.append(f"initialize {config.model}")

    def _release_model(self) -> None:
        self.events.append(f"release {self.config.model}")

    @action(default=True, description="Adds.")
    def add(self, a: int, b: int = 2, **more: int) -> int:
        """Not this."""
        return a + b + sum(more.values())

    @action(name="say-it")
    def say(self, text: str, call: Call) -> Dict[str, Any]:
        """Says it.

        At length.
        """
        return {"text": text, "job": call.job_id, "same": call is current_call()}

    @action
    def hold(self) -> None:
        self.report_progress(0.5, "holding")
        with self.cancel_signal_to(self.gate.set):
            self.gate.wait(20)
        raise RuntimeError("the tool was stopped")

    @action
    def count(self, n: int) -> Iterator[int]:
        try:
            for i in range(n):
                yield i
        finally:
            self.events.append("counted")


def fails(code: str, run: Any) -> Dict[str, Any]:
    with pytest.raises(CallFailed) as caught:
        run()
    assert caught.value.error["code"] == code, caught.value.error
    return dict(caught.value.error)


def test_a_capability_needs_no_more_than_a_name_a_version_and_an_action() -> None:
    worker = LocalWorker(Bare)
    assert worker.run(text="hi") == "hi"
    for hook in ("prefetch", "on_disable", "on_enable", "cleanup", "release"):
        assert worker.post(f"/{hook}", {}) == {"status": "not_supported"}
    assert worker.get("/config") == {}
    assert worker.get("/config_options") == {}
    assert worker.request("POST", "/get_system_status").status == 404


def test_actions_are_described_by_their_methods() -> None:
    actions = actions_of(Tool)
    assert list(actions) == ["add", "say-it", "hold", "count"]
    assert actions["add"].description == "Adds."
    assert actions["say-it"].description == "Says it."
    assert actions["say-it"].params == ["text"]
    assert actions["count"].streaming
    assert actions["count"].output_schema["type"] == "integer"
    manifest = actions["add"].to_manifest()
    assert manifest["default"] and not manifest["streaming"] and not manifest["repeatable"]
    assert manifest["input_schema"]["additionalProperties"] == {"type": "integer"}


def test_arguments_are_bound_by_name_and_position() -> None:
    worker = LocalWorker(Tool)
    assert worker.run(a=1) == 3
    assert worker.run(a=1, b=1, c=5) == 7
    assert worker.post("/execute", {"args": [4, 5]}) == 9
    fails("CAPABILITY_INPUT", lambda: worker.post("/execute", {"args": [4], "kwargs": {"a": 1}}))


def test_the_call_is_there_as_a_parameter_and_from_anywhere() -> None:
    result = LocalWorker(Tool).run("say-it", text="x", envelope={"job_id": "j"})
    assert result == {"text": "x", "job": "j", "same": True}


def test_a_call_outside_one_is_an_error_that_says_so() -> None:
    with pytest.raises(RuntimeError, match="no call runs"):
        Tool().report_progress(1)


def test_config_is_checked_by_the_class_too() -> None:
    worker = LocalWorker(Tool)
    error = fails("CONFIG_INVALID", lambda: worker.post("/initialize", {"size": 101}))
    assert "over 100" in error["message"]
    assert worker.get("/config")["size"] == 1


def test_a_trigger_fires_once_with_the_old_config_before_the_new_one_applies() -> None:
    worker = LocalWorker(Tool)
    new = {"model": "b", "device": "cuda"}
    reply = worker.post("/reconfigure", {"old_config": {}, "new_config": new})
    assert reply["changed"] == ["model", "device"] and reply["released"] == ["model"]
    events = getattr(worker.worker.capability, "events")
    assert events == ["initialize a", "release a", "initialize b"]


def test_a_trigger_without_a_release_is_an_error_of_the_author() -> None:
    class Wrong(Bare):
        @dataclass
        class Config:
            model: str = field(default="a", metadata={"reload_trigger": "weights"})

    with pytest.raises(TypeError, match="_release_weights"):
        LocalWorker(Wrong)


def test_a_required_config_field_is_asked_for() -> None:
    class Needy(Bare):
        @dataclass
        class Config:
            path: str

    fails("CONFIG_INVALID", lambda: LocalWorker(Needy))
    assert LocalWorker(Needy, {"path": "/x"}).run(text="a") == "a"


def test_whatever_a_cancelled_call_raises_is_its_cancel() -> None:
    worker = LocalWorker(Tool)
    replies: List[Any] = []
    body = {"kwargs": {"action": "hold"}, "envelope": {"job_id": "j"}}
    thread = threading.Thread(
        target=lambda: replies.append(worker.request("POST", "/execute", body))
    )
    thread.start()
    while worker.get("/progress", job_id="j")["message"] != "holding":
        thread.join(0.01)
    assert worker.post("/cancel", {"job_id": "other"})["calls"] == 0
    assert worker.post("/cancel", {"job_id": "j"})["calls"] == 1
    thread.join()
    assert replies[0].status == 409
    error = json.loads(replies[0].body)["_job_error"]
    assert error["code"] == "CAPABILITY_CANCELLED"
    assert "the tool was stopped" in error["traceback"]


def test_a_stream_that_is_left_ends_its_generator_and_its_call() -> None:
    worker = LocalWorker(Tool)
    body = {"kwargs": {"action": "count", "n": 10}}
    lines = worker.request("POST", "/execute_stream", body).body
    assert not isinstance(lines, bytes)
    assert next(iter(lines)) == b"0\n"
    lines.close()
    assert getattr(worker.worker.capability, "events")[-1] == "counted"
    assert worker.post("/cancel", {})["calls"] == 0


def test_a_stream_that_is_never_read_ends_its_call() -> None:
    worker = LocalWorker(Tool)
    body = {"kwargs": {"action": "count", "n": 10}}
    lines = worker.request("POST", "/execute_stream", body).body
    assert not isinstance(lines, bytes)
    lines.close()
    assert worker.post("/cancel", {})["calls"] == 0


def test_a_stream_is_a_list_in_a_test() -> None:
    assert LocalWorker(Tool).run("count", n=3) == [0, 1, 2]


@pytest.mark.parametrize("body", [b"\xff", b"{", b'{"a": NaN}', b'"\\ud800', b"[1]", b"1 2"])
def test_a_body_that_is_no_json_object_is_refused(body: bytes) -> None:
    worker = LocalWorker(Bare).worker
    from cjm_worker.messages import Request

    response = worker.handle(Request("POST", "/execute", {}, body))
    assert response.status == 400


def test_a_number_of_many_digits_costs_no_time() -> None:
    digits = "9" * 1_000_000
    from cjm_worker.messages import Request

    class Any_(Bare):
        @action(default=True)
        def take(self, n: float) -> float:
            return n

    body = f'{{"kwargs": {{"n": {digits}}}}}'.encode()
    response = LocalWorker(Any_).worker.handle(Request("POST", "/execute", {}, body))
    assert response.status == 400 and b"expected number" in bytes(response.body)  # type: ignore[arg-type]


def test_a_result_that_has_no_json_form_is_the_tools_mistake() -> None:
    class Odd(Bare):
        @action(default=True)
        def run(self, kind: str) -> Any:
            values = {"nan": float("nan"), "bytes": b"x", "key": {1: 2}, "object": object()}
            return values[kind]

    worker = LocalWorker(Odd)
    for kind in ("nan", "bytes", "key", "object"):
        fails("CAPABILITY_OUTPUT", lambda: worker.run(kind=kind))


def test_text_with_half_a_character_survives() -> None:
    body = b'{"kwargs": {"text": "a\\ud800b"}}'
    from cjm_worker.messages import Request

    response = LocalWorker(Bare).worker.handle(Request("POST", "/execute", {}, body))
    assert response.body == b'"a\\ud800b"'


def test_actions_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(TypeError, match="two actions named run"):

        class Twice(Bare):
            @action(name="run")
            def again(self) -> None: ...

        actions_of(Twice)
    with pytest.raises(TypeError, match="default"):

        class Defaults(Capability):
            @action(default=True)
            def a(self) -> None: ...

            @action(default=True)
            def b(self) -> None: ...

        actions_of(Defaults)
    with pytest.raises(TypeError, match="async"):

        @action
        async def waits() -> None: ...


def test_an_input_without_a_json_form_is_refused_by_name() -> None:
    class Wrong(Bare):
        @action
        def take(self, blob: bytes) -> None: ...

    with pytest.raises(TypeError, match="blob.*FileRef"):
        actions_of(Wrong)


class Singer(Protocol):
    def add(self, a: int) -> int: ...
    @property
    def name(self) -> str: ...


class Sums(TaskAdapter):
    task_name = "sums"
    requires = ("add",)
    required_tool_protocol = Singer

    def total(self, numbers: List[int]) -> int:
        total = 0
        for number in numbers:
            total = self.tool.add(total, number)
        return total

    def fail(self) -> None:
        raise CapabilityTransientError("later")


class Unfit(TaskAdapter):
    task_name = "unfit"
    requires = ("dance",)

    def dance(self) -> None: ...


def test_a_task_adapter_is_bound_when_the_tool_has_what_it_needs() -> None:
    class Both(Tool):
        tasks = (Sums, Unfit)

    worker = LocalWorker(Both)
    assert worker.task("sums", "total", numbers=[1, 2, 3]) == 6
    fails("METHOD_NOT_SUPPORTED", lambda: worker.task("unfit", "dance"))
    fails("CAPABILITY_TRANSIENT", lambda: worker.task("sums", "fail"))
    accounts = [frame["payload"] for frame in worker.sink.of("account")]
    assert [account["ok"] for account in accounts] == [True, False]
    assert accounts[1]["error_category"] == "transient"


def test_a_tool_fits_a_protocol_whose_parameters_come_first() -> None:
    surface = structural_surface(Tool)
    assert missing_members(protocol_members(Sums), surface, Tool) == []
    wrong = {"methods": [{"name": "add", "params": ["b"]}], "properties": ["colour"]}
    assert missing_members(wrong, surface, Tool) == ["add(b)", "colour"]
    assert missing_members(protocol_members(Unfit), surface, Tool) == ["dance"]


def test_the_surface_leaves_out_what_every_capability_has() -> None:
    surface = structural_surface(Tool)
    names = [method["name"] for method in surface["methods"]]
    assert names == ["add", "count", "hold", "initialize", "say"]
    assert surface["properties"] == ["name", "version"]
    say = next(method for method in surface["methods"] if method["name"] == "say")
    assert say["params"] == ["text"]


def test_hooks_answer_what_they_did(caplog: pytest.LogCaptureFixture) -> None:
    class Full(Bare):
        def prefetch(self) -> None:
            self.report_progress(1, "there")

        def release(self, level: str) -> ReleaseReply:
            return ReleaseReply(held=f"after {level}", freed_mb=1.5)

        def get_config_options(self) -> Dict[str, FieldOptions]:
            return {"model": FieldOptions([], {"maximum": 3})}

        def get_system_status(self) -> Dict[str, Any]:
            raise NotImplementedError("not on this machine")

        def cleanup(self) -> None:
            logging.getLogger("t").warning("cleaned")

    worker = LocalWorker(Full)
    assert worker.post("/prefetch") == {"status": "prefetched"}
    assert worker.sink.of("progress")[0]["message"] == "there"
    released = {"status": "released", "held": "after soft", "freed_mb": 1.5}
    assert worker.post("/release", {"level": "soft"}) == released
    options = {"model": {"options": [], "constraints": {"maximum": 3}}}
    assert worker.get("/config_options") == options
    assert worker.request("POST", "/get_system_status").status == 501
    for _ in range(2):
        assert worker.post("/cleanup") == {"status": "cleaned"}
    assert caplog.messages == ["cleaned"]


def test_usage_is_summed_per_call_and_the_latest_is_shown() -> None:
    class Metered(Bare):
        @action(default=True)
        def run(self, tokens: Optional[int] = None) -> None:
            if tokens is not None:
                self.report_usage({"tokens": tokens})
                self.report_usage({"tokens": 1})

    worker = LocalWorker(Metered)
    worker.run(tokens=2)
    worker.run()
    assert worker.get("/stats")["usage"] == {"tokens": 3}


def test_a_thread_bound_to_a_call_belongs_to_it() -> None:
    class Threaded(Bare):
        @action(default=True)
        def run(self, call: Call) -> Optional[str]:
            seen: List[Optional[str]] = []

            def work() -> None:
                seen.append(self.call.job_id)

            thread = threading.Thread(target=call.bind(work))
            thread.start()
            thread.join()
            return seen[0]

    assert LocalWorker(Threaded).run(envelope={"job_id": "j"}) == "j"


def test_a_cancel_callback_runs_once_and_one_that_fails_stops_no_other() -> None:
    called: List[str] = []
    call = Call(LocalWorker(Bare).sink)
    call.on_cancel(lambda: 1 / 0)
    call.on_cancel(lambda: called.append("second"))
    with call.cancel_signal_to(lambda: called.append("left")):
        pass
    call.cancel("by test")
    call.cancel("again")
    call.on_cancel(lambda: called.append("late"))
    assert called == ["second", "late"]


def test_a_tool_that_exits_fails_its_call_only() -> None:
    class Quitter(Bare):
        @action(default=True)
        def run(self) -> None:
            raise SystemExit(3)

        @action
        def stream(self) -> Iterator[int]:
            yield 1
            raise SystemExit(3)

    worker = LocalWorker(Quitter)
    assert fails("CAPABILITY_ERROR", worker.run)["category"] == "fatal"
    assert fails("CAPABILITY_ERROR", lambda: worker.run("stream"))["category"] == "fatal"
