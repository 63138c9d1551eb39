"""Runs a capability in the test's own process, through the same checks as a real call."""

import json
from typing import Any, Dict, List, Mapping, Optional, Sequence, Type

from .calls import Call
from .capability import Capability
from .control import Frame, encode_frame
from .messages import Request, Response
from .worker import Worker


class FrameList:
    """Keeps the frames a capability reports."""

    def __init__(self) -> None:
        self.frames: List[Dict[str, Any]] = []

    def send(self, frame: Frame) -> None:
        self.frames.append(json.loads(encode_frame(frame)))

    def flush_job(self, job_id: Optional[str]) -> bool:
        return True

    def of(self, kind: str) -> List[Dict[str, Any]]:
        """The frames of one type, in order."""
        return [frame for frame in self.frames if frame["type"] == kind]


class CallFailed(AssertionError):
    """A call answered with a failure; ``error`` is its ``_job_error``."""

    def __init__(self, status: int, error: Mapping[str, Any]) -> None:
        super().__init__(f"{status} {error.get('code')}: {error.get('message')}")
        self.status = status
        self.error = error


class LocalWorker:
    """A capability without a process around it.

    ``LocalWorker(Greeter).run("greet", who="Ada")`` returns what a host would get.
    """

    def __init__(
        self,
        capability: Type[Capability],
        config: Optional[Mapping[str, Any]] = None,
        adapters: Sequence[str] = (),
    ) -> None:
        self.sink = FrameList()
        self.worker = Worker(capability(), self.sink, adapters)
        self.post("/initialize", config or {})

    def request(self, method: str, path: str, body: Any = None, **more: Any) -> Response:
        """One raw request; ``query`` and ``watch`` may be given."""
        data = b"" if body is None else json.dumps(body).encode("utf-8")
        return self.worker.handle(Request(method, path, more.pop("query", {}), data, **more))

    def post(self, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON answer of a request; raises CallFailed for a failure."""
        return _value(self.request("POST", path, body, **more))

    def get(self, path: str, **query: str) -> Any:
        """The JSON answer of a question; raises CallFailed for a failure."""
        return _value(self.request("GET", path, None, query=query))

    def run(
        self,
        action: Optional[str] = None,
        envelope: Optional[Mapping[str, Any]] = None,
        **kwargs: Any,
    ) -> Any:
        """The result of an action, or the list of its chunks when it streams."""
        named = kwargs if action is None else {**kwargs, "action": action}
        body = {"kwargs": named, "envelope": dict(envelope or {})}
        method = self.worker.actions.get(action or "")
        if method is None or not method.streaming:
            return self.post("/execute", body)
        lines = self.request("POST", "/execute_stream", body).body
        chunks = [json.loads(line) for line in lines if isinstance(line, bytes)]
        if chunks and isinstance(chunks[-1], dict) and "_job_error" in chunks[-1]:
            raise CallFailed(200, chunks[-1]["_job_error"])
        return chunks

    def task(self, task: str, method: str, **kwargs: Any) -> Any:
        """The result of a task adapter's method."""
        return self.post("/task", {"task": task, "method": method, "kwargs": kwargs})


def _value(response: Response) -> Any:
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    value = json.loads(body)
    if response.status != 200:
        raise CallFailed(response.status, value.get("_job_error", {}))
    return value


__all__ = ["Call", "CallFailed", "FrameList", "LocalWorker"]
