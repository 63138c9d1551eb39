"""The routes of a worker, apart from any socket: a request goes in, a response comes out."""

import os
import time
from typing import Any, Callable, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from .actions import TypedMethod, actions_of
from .bounds import to_json
from .calls import Call, Envelope, entered
from .capability import Capability
from .control import FrameSink
from .errors import CapabilityError, to_job_error
from .lifecycle import LifeCycle
from .messages import (
    LineGenerator,
    Lines,
    Request,
    Response,
    array_of,
    encode_result,
    members_of,
    object_of,
)
from .running import RunningCalls
from .schema import to_plain
from .stats import ProcessStats
from .surface import BoundTask, bind_tasks, structural_surface

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
        self.calls = RunningCalls(sink)
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
            "/stats": lambda _: _json({**self._stats.read(), "usage": self.calls.usage}),
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
            body = object_of(request.body)
            call = Call(self._sink, name=name)
            self.calls.start(call)
            request.watch(call)
            try:
                with entered(call):
                    return _json(route(body, call))
            except _FAILURES as error:
                return self._failure(error, call)
            finally:
                self.calls.end(call)

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
        body = object_of(request.body)
        method, kwargs = self._choose(body)
        if method.streaming:
            message = f"{method.name} streams; call /execute_stream"
            raise CapabilityError(message, code="METHOD_NOT_SUPPORTED")
        call = self._begin(request, body, method.name)

        def run() -> Any:
            values = method.bind_input(array_of(body, "args"), kwargs)
            call.check_cancel()
            return method.encode_output(method.invoke(self.capability, values, call))

        return self._answer(call, run)

    def _answer(self, call: Call, run: Callable[[], Any]) -> Response:
        try:
            with entered(call):
                return Response(200, encode_result(run()))
        except _FAILURES as error:
            return self._failure(error, call)
        finally:
            self.calls.end(call)

    def _execute_stream(self, request: Request) -> Response:
        """Wrong input is refused with its status; a failure afterwards is the last line."""
        body = object_of(request.body)
        method, kwargs = self._choose(body)
        values = method.bind_input(array_of(body, "args"), kwargs)
        call = self._begin(request, body, method.name)
        lines = self._lines(method, values, call)
        return Response(200, Lines(lines, lambda: self.calls.end(call), call))

    def _lines(self, method: TypedMethod, values: Dict[str, Any], call: Call) -> LineGenerator:
        try:
            # A generator runs in its consumer's context: this connection's thread has this call.
            with entered(call):
                for chunk in self._chunks(method, values, call):
                    yield encode_result(chunk) + b"\n"
        except _FAILURES as error:
            yield to_json({"_job_error": self._job_error(self._meaning(error, call), call)}) + b"\n"
        finally:
            self.calls.end(call)

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
        body = object_of(request.body)
        task, name = str(body.get("task")), str(body.get("method"))
        bound = self.tasks.get(task)
        method = bound.methods.get(name) if bound and not name.startswith("_") else None
        if bound is None or method is None:
            return self.refuse(404, f"no method {name!r} of task {task!r} is bound")
        call = self._begin(request, body, f"{task}.{name}")
        adapter, kwargs = bound.adapter, members_of(body, "kwargs")
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

    def _choose(self, body: Mapping[str, Any]) -> Tuple[TypedMethod, Dict[str, Any]]:
        kwargs = dict(members_of(body, "kwargs"))
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
        self.calls.start(call)
        request.watch(call)
        return call

    def _meaning(self, error: BaseException, call: Call) -> BaseException:
        """What a cancelled call raises is its cancellation, whatever the tool made of it."""
        if not call.cancelled or getattr(error, "code", "") == "CAPABILITY_CANCELLED":
            return error
        meant = call.cancel_error()
        meant.__cause__ = error
        return meant

    def _cancel(self, request: Request) -> Response:
        job = object_of(request.body).get("job_id")
        count = self.calls.cancel_where(
            lambda call: job is None or call.job_id == job, "by request"
        )
        return _json({"status": "cancelled", "calls": count})

    def _progress(self, request: Request) -> Response:
        call = self.calls.latest(request.query.get("job_id"))
        if call is None:
            return _json({"progress": 0.0, "message": ""})
        return _json({"progress": call.progress, "message": call.message})


def _status_of(job_error: Mapping[str, Any]) -> int:
    known = _STATUS.get(job_error["code"])
    return known or (400 if job_error["category"] == "user_input" else 500)
