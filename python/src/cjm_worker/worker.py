"""The routes of a worker, apart from any socket: a request goes in, a response comes out."""

import os
import threading
import time
from typing import (
    Any,
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Union,
)

from .actions import TypedMethod, actions_of
from .bounds import check_bounds, parse_json, to_json
from .calls import Call, Envelope, entered
from .capability import Capability
from .control import FrameSink
from .errors import CapabilityError, CapabilityInputError, to_job_error
from .lifecycle import LifeCycle
from .schema import to_plain
from .stats import ProcessStats
from .surface import BoundTask, bind_tasks, structural_surface

LineGenerator = Generator[bytes, None, None]

PROTOCOL_VERSION = 1
FEATURES = ("cancel_by_job", "control_stream", "progress_by_job", "release")
_STATUS = {
    "ACTION_UNKNOWN": 404,
    "METHOD_NOT_SUPPORTED": 404,
    "CAPABILITY_CANCELLED": 409,
    "REQUEST_TOO_LARGE": 413,
}
#: A tool that calls ``sys.exit`` fails its call; it does not end the worker.
_FAILURES = (Exception, SystemExit)
_REFUSAL_CODES = {400: "CAPABILITY_INPUT", 413: "REQUEST_TOO_LARGE"}


class Response(NamedTuple):
    """What goes back: one JSON body, or the lines of a stream."""

    status: int
    body: Union[bytes, "Lines"]


class Request(NamedTuple):
    """What came in; the body is read and bounded, not yet parsed."""

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    #: Told about the call this request became, so that a closed connection can cancel it.
    watch: Callable[[Call], None] = lambda call: None


def _json(value: Any, status: int = 200) -> Response:
    return Response(status, to_json(value))


class Worker:
    """One capability instance and the calls that run on it.

    ``sink`` receives the frames; give it a list-like sink to test a capability in process.
    Raises what the author's class raises while it is made, and TypeError for hints without a
    JSON form.
    """

    def __init__(
        self, capability: Capability, sink: FrameSink, adapters: Sequence[str] = ()
    ) -> None:
        self.capability = capability
        self.actions = actions_of(type(capability))
        self.life = LifeCycle(capability, sink)
        self.tasks: Dict[str, BoundTask] = bind_tasks(capability, adapters)
        self._sink = sink
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self._running: List[Call] = []
        #: What the latest call that reported any used.
        self._usage: Dict[str, float] = {}
        self._last: Optional[Call] = None
        self._stats = ProcessStats()
        self._routes: Dict[str, Dict[str, Callable[[Request], Response]]] = {
            "GET": self._questions(),
            "POST": {
                **self._life_cycle_routes(),
                "/execute": self._execute,
                "/execute_stream": self._execute_stream,
                "/task": self._task,
                "/cancel": self._cancel,
                "/get_system_status": self._monitor("get_system_status"),
                "/list_processes": self._monitor("list_processes"),
            },
        }

    def _questions(self) -> Dict[str, Callable[[Request], Response]]:
        surface = structural_surface(type(self.capability))
        return {
            "/health": lambda _: _json(self.health()),
            "/stats": lambda _: _json({**self._stats.read(), "usage": self._usage}),
            "/structural_surface": lambda _: _json(surface),
            "/config_schema": lambda _: _json(self.life.config_schema),
            "/config": lambda _: _json(self.life.config_json or {}),
            "/config_options": lambda _: _json(self.life.config_options()),
            "/progress": self._progress,
        }

    def _life_cycle_routes(self) -> Dict[str, Callable[[Request], Response]]:
        life = self.life
        routes = {
            "initialize": life.initialize,
            "reconfigure": life.reconfigure,
            "prefetch": life.hook("prefetch", "prefetched"),
            "on_disable": life.hook("on_disable", "disabled"),
            "on_enable": life.hook("on_enable", "enabled"),
            "release": life.release,
            "cleanup": life.cleanup,
        }
        return {f"/{name}": self._life_cycle(name, route) for name, route in routes.items()}

    def health(self) -> Dict[str, Any]:
        """What the worker is; also the body of its ``ready`` frame."""
        return {
            "status": "running",
            "pid": os.getpid(),
            "name": self.capability.name,
            "version": self.capability.version,
            "protocol": PROTOCOL_VERSION,
            "features": list(FEATURES),
        }

    def handle(self, request: Request) -> Response:
        """Answers one request; every failure becomes a response."""
        handler = self._routes.get(request.method, {}).get(request.path)
        if handler is None:
            known = any(request.path in routes for routes in self._routes.values())
            return self.refuse(405 if known else 404, f"no route {request.method} {request.path}")
        try:
            return handler(request)
        except Exception as error:
            return self._failure(error)

    def refuse(self, status: int, message: str) -> Response:
        """A failure of the request itself."""
        code = _REFUSAL_CODES.get(status, "METHOD_NOT_SUPPORTED")
        return self._failure(CapabilityError(message, code=code), status=status)

    def cancel_all(self, reason: str) -> int:
        """Cancels every running call; the number of them."""
        return self._cancel_where(lambda call: True, reason)

    def wait_idle(self, timeout: float) -> bool:
        """Waits until no call runs; False when the time is up first."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._running, timeout)

    def run_cleanup(self) -> None:
        """Runs the author's cleanup, unless it already ran."""
        self.life.run_cleanup()

    def _failure(
        self, error: BaseException, call: Optional[Call] = None, status: Optional[int] = None
    ) -> Response:
        job_error = self._job_error(error if call is None else self._meaning(error, call), call)
        body = {"status": "error", "detail": job_error["message"], "_job_error": job_error}
        return _json(body, status or _status_of(job_error))

    def _job_error(self, error: BaseException, call: Optional[Call]) -> Dict[str, Any]:
        instance = call.envelope.capability_instance_id if call else None
        return to_job_error(
            error, capability_name=self.capability.name, capability_instance_id=instance
        )

    def _life_cycle(
        self, name: str, route: Callable[[Dict[str, Any], Call], Dict[str, Any]]
    ) -> Callable[[Request], Response]:
        def run(request: Request) -> Response:
            body = _object(request.body)
            call = Call(self._sink, name=name)
            self._start(call, request)
            try:
                with entered(call):
                    return _json(route(body, call))
            except _FAILURES as error:
                return self._failure(error, call)
            finally:
                self._end(call)

        return run

    def _monitor(self, name: str) -> Callable[[Request], Response]:
        def ask(request: Request) -> Response:
            method = getattr(self.capability, name, None)
            if not callable(method):
                return self.refuse(404, f"{self.capability.name} is not a monitor")
            try:
                return _json(to_plain(method()))
            except NotImplementedError as error:
                return self.refuse(501, str(error) or f"{name} is not implemented")

        return ask

    def _execute(self, request: Request) -> Response:
        body = _object(request.body)
        method, kwargs = self._choose(body)
        if method.streaming:
            message = f"{method.name} streams; call /execute_stream"
            raise CapabilityError(message, code="METHOD_NOT_SUPPORTED")
        call = self._begin(request, body, method.name)

        def run() -> Any:
            values = method.bind_input(_array(body, "args"), kwargs)
            call.check_cancel()
            return method.encode_output(method.invoke(self.capability, values, call))

        return self._answer(call, run)

    def _answer(self, call: Call, run: Callable[[], Any]) -> Response:
        try:
            with entered(call):
                return Response(200, _encode_result(run()))
        except _FAILURES as error:
            return self._failure(error, call)
        finally:
            self._end(call)

    def _execute_stream(self, request: Request) -> Response:
        """Wrong input is refused with its status; a failure afterwards is the last line."""
        body = _object(request.body)
        method, kwargs = self._choose(body)
        values = method.bind_input(_array(body, "args"), kwargs)
        call = self._begin(request, body, method.name)
        lines = self._lines(method, values, call)
        return Response(200, Lines(lines, lambda: self._end(call), call))

    def _lines(self, method: TypedMethod, values: Dict[str, Any], call: Call) -> LineGenerator:
        try:
            # A generator runs in its consumer's context: this connection's thread has this call.
            with entered(call):
                for chunk in self._chunks(method, values, call):
                    yield _encode_result(chunk) + b"\n"
        except _FAILURES as error:
            yield to_json({"_job_error": self._job_error(self._meaning(error, call), call)}) + b"\n"
        finally:
            self._end(call)

    def _chunks(self, method: TypedMethod, values: Dict[str, Any], call: Call) -> Iterator[Any]:
        call.check_cancel()
        result = method.invoke(self.capability, values, call)
        if not method.streaming:
            yield method.encode_output(result)
            return
        try:
            for chunk in result:
                yield method.encode_output(chunk)
                call.check_cancel()
        finally:
            result.close()

    def _task(self, request: Request) -> Response:
        body = _object(request.body)
        task, name = str(body.get("task")), str(body.get("method"))
        bound = self.tasks.get(task)
        method = bound.methods.get(name) if bound and not name.startswith("_") else None
        if bound is None or method is None:
            return self.refuse(404, f"no method {name!r} of task {task!r} is bound")
        call = self._begin(request, body, f"{task}.{name}")
        adapter, kwargs = bound.adapter, _members(body, "kwargs")
        chosen = method

        def run() -> Any:
            result = chosen.invoke(adapter, chosen.bind_input([], kwargs), call)
            return chosen.encode_output(list(result) if chosen.streaming else result)

        return self._answer(call, lambda: self._accounted(task, name, call, run))

    def _accounted(self, task: str, method: str, call: Call, run: Callable[[], Any]) -> Any:
        started = time.monotonic()
        account: Dict[str, Any] = {"task": task, "method": method, "ok": False}
        try:
            result = run()
            account["ok"] = True
            return result
        except _FAILURES as error:
            meant = self._meaning(error, call)
            account["error_category"] = to_job_error(meant)["category"]
            raise
        finally:
            account["duration_s"] = round(time.monotonic() - started, 6)
            call.record_account("task_account", account)

    def _choose(self, body: Mapping[str, Any]) -> "tuple[TypedMethod, Dict[str, Any]]":
        kwargs = dict(_members(body, "kwargs"))
        name = kwargs.pop("action", None)
        if name is None:
            name = next((key for key, item in self.actions.items() if item.default), None)
        if not isinstance(name, str) or name not in self.actions:
            known = ", ".join(self.actions) or "none"
            wrong = "no action was named" if name is None else f"there is no action {name!r}"
            message = f"{wrong}; {self.capability.name} has {known}"
            raise CapabilityError(message, code="ACTION_UNKNOWN", fields_invalid=["action"])
        return self.actions[name], kwargs

    def _begin(self, request: Request, body: Mapping[str, Any], name: str) -> Call:
        self.life.require_config()
        call = Call(self._sink, Envelope.from_wire(body.get("envelope")), name)
        self._start(call, request)
        return call

    def _meaning(self, error: BaseException, call: Call) -> BaseException:
        """What a cancelled call raises is its cancellation, whatever the tool made of it."""
        if not call.cancelled or getattr(error, "code", "") == "CAPABILITY_CANCELLED":
            return error
        meant = call.cancel_error()
        meant.__cause__ = error
        return meant

    def _start(self, call: Call, request: Request) -> None:
        with self._lock:
            self._running.append(call)
            self._last = call
        request.watch(call)

    def _end(self, call: Call) -> None:
        with self._lock:
            if call in self._running:
                self._running.remove(call)
                self._idle.notify_all()
            if call.usage:
                self._usage = dict(call.usage)
        # What the call reported arrives before its answer does.
        self._sink.flush_job(call.job_id)

    def _cancel(self, request: Request) -> Response:
        job = _object(request.body).get("job_id")
        count = self._cancel_where(lambda call: job is None or call.job_id == job, "by request")
        return _json({"status": "cancelled", "calls": count})

    def _cancel_where(self, chosen: Callable[[Call], bool], reason: str) -> int:
        with self._lock:
            calls = [call for call in self._running if chosen(call)]
        for call in calls:
            call.cancel(reason)
        return len(calls)

    def _progress(self, request: Request) -> Response:
        job = request.query.get("job_id")
        with self._lock:
            matching = [call for call in self._running if job is not None and call.job_id == job]
            call = matching[-1] if matching else (self._last if job is None else None)
        if call is None:
            return _json({"progress": 0.0, "message": ""})
        return _json({"progress": call.progress, "message": call.message})


class Lines:
    """The lines of a stream; closing it before its end cancels the call."""

    def __init__(self, lines: LineGenerator, end: Callable[[], None], call: Call) -> None:
        self._lines = lines
        self._end = end
        self._call = call
        self._finished = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self._lines
        self._finished = True

    def close(self) -> None:
        """Ends the stream, also one that was never begun."""
        if not self._finished:
            self._call.cancel("the caller left the stream")
        self._lines.close()
        self._end()


def _status_of(job_error: Mapping[str, Any]) -> int:
    known = _STATUS.get(job_error["code"])
    return known or (400 if job_error["category"] == "user_input" else 500)


def _encode_result(value: Any) -> bytes:
    try:
        encoded = to_json(value)
    except ValueError as error:
        message = f"the result has no JSON form: {error}"
        raise CapabilityError(message, code="CAPABILITY_OUTPUT") from error
    check_bounds(encoded, response=True)
    return encoded


def _object(body: bytes) -> Dict[str, Any]:
    value = parse_json(body) if body.strip() else {}
    if not isinstance(value, dict):
        raise CapabilityInputError("the body must be a JSON object", fields_invalid=["body"])
    return value


def _members(body: Mapping[str, Any], key: str) -> Dict[str, Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, dict):
        raise CapabilityInputError(f"{key} must be an object", fields_invalid=[key])
    return value or {}


def _array(body: Mapping[str, Any], key: str) -> List[Any]:
    value = body.get(key)
    if value is not None and not isinstance(value, list):
        raise CapabilityInputError(f"{key} must be an array", fields_invalid=[key])
    return value or []
