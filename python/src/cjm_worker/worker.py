"""The routes of a worker, apart from any socket: a request goes in, a response comes out."""

import os
import threading
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Union

from .actions import TypedMethod, actions_of
from .bounds import check_bounds, parse_json, to_json
from .calls import Call, Envelope, entered
from .capability import Capability, FieldOptions, changed_fields, fire_release, reload_triggers
from .control import Frame, FrameSink
from .errors import CapabilityConfigError, CapabilityError, CapabilityInputError, to_job_error
from .schema import decode_record, schema_of, to_plain
from .stats import ProcessStats
from .surface import BoundTask, bind_tasks, structural_surface
from .validate import describe_problems, find_problems, paths_of

PROTOCOL_VERSION = 1
FEATURES = ("cancel_by_job", "control_frames", "deadlines", "release", "streaming", "tasks")


class Response(NamedTuple):
    """What goes back: one JSON body, or the lines of a stream."""

    status: int
    body: Union[bytes, Iterator[bytes]]


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


class _Meter:
    """Passes frames on and sums the usage they report."""

    def __init__(self, sink: FrameSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self.usage: Dict[str, float] = {}

    def send(self, frame: Frame) -> None:
        if frame["type"] == "usage":
            with self._lock:
                for unit, amount in frame["units"].items():
                    self.usage[unit] = self.usage.get(unit, 0.0) + amount
        self._sink.send(frame)

    def flush_job(self, job_id: Optional[str]) -> bool:
        return self._sink.flush_job(job_id)


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
        self.config_schema = schema_of(type(capability).Config, "Config")
        self.tasks: Dict[str, BoundTask] = bind_tasks(capability, adapters)
        self._sink = _Meter(sink)
        self._lock = threading.Lock()
        self._running: List[Call] = []
        self._last: Optional[Call] = None
        self._stats = ProcessStats()
        self._cleaned = False
        self._configured = False
        self._config_json: Dict[str, Any] = {}
        if not find_problems({}, self.config_schema):
            self._apply_config({})
        self._routes: Dict[str, Dict[str, Callable[[Request], Response]]] = {
            "GET": {
                "/health": lambda _: _json(self.health()),
                "/stats": lambda _: _json({**self._stats.read(), "usage": dict(self._sink.usage)}),
                "/structural_surface": lambda _: _json(structural_surface(type(capability))),
                "/config_schema": lambda _: _json(self.config_schema),
                "/config": lambda _: _json(self._config_json),
                "/config_options": self._config_options,
                "/progress": self._progress,
            },
            "POST": {
                "/initialize": self._initialize,
                "/reconfigure": self._reconfigure,
                "/prefetch": self._hook("prefetch", "prefetched"),
                "/on_disable": self._hook("on_disable", "disabled"),
                "/on_enable": self._hook("on_enable", "enabled"),
                "/cleanup": self._run_cleanup,
                "/release": self._release,
                "/execute": self._execute,
                "/execute_stream": self._execute_stream,
                "/task": self._task,
                "/cancel": self._cancel,
                "/get_system_status": self._monitor("get_system_status"),
                "/list_processes": self._monitor("list_processes"),
            },
        }

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
        except CapabilityError as error:
            return self._failure(error, _status_of(error))
        except Exception as error:
            return self._failure(error, 500)

    def refuse(self, status: int, message: str) -> Response:
        """A failure of the request itself."""
        code = "REQUEST_TOO_LARGE" if status == 413 else "METHOD_NOT_SUPPORTED"
        return self._failure(CapabilityError(message, code=code), status)

    def cancel_all(self, reason: str) -> int:
        """Cancels every running call; the number of them."""
        return self._cancel_where(lambda call: True, reason)

    def run_cleanup(self) -> None:
        """Runs the author's cleanup once."""
        with self._lock:
            if self._cleaned:
                return
            self._cleaned = True
        with entered(Call(self._sink, name="cleanup")):
            self.capability.cleanup()

    def _failure(self, error: BaseException, status: int, call: Optional[Call] = None) -> Response:
        body = {"detail": str(error), "_job_error": self._job_error(error, call)}
        if status == 500:
            del body["detail"]
        return _json(body, status)

    def _job_error(self, error: BaseException, call: Optional[Call]) -> Dict[str, Any]:
        instance = call.envelope.capability_instance_id if call else None
        return to_job_error(
            error, capability_name=self.capability.name, capability_instance_id=instance
        )

    # Configuration and life cycle

    def _parse_config(self, data: Any) -> Any:
        problems = find_problems(data, self.config_schema)
        if problems:
            raise CapabilityConfigError(
                f"config: {describe_problems(problems)}", fields_invalid=paths_of(problems)
            )
        try:
            return decode_record(type(self.capability).Config, data)
        except (ValueError, TypeError) as error:
            raise CapabilityConfigError(f"config: {error}") from error

    def _apply_config(self, data: Mapping[str, Any]) -> Any:
        self.capability.config = self._parse_config(dict(data))
        self._config_json = to_plain(self.capability.config)
        return self.capability.config

    def _initialize(self, request: Request) -> Response:
        config = self._apply_config(_object(request.body))
        with entered(Call(self._sink, name="initialize")):
            self.capability.initialize(config)
        self._configured = True
        return _json({"status": "ok"})

    def _reconfigure(self, request: Request) -> Response:
        body = _object(request.body)
        if not isinstance(body.get("new_config"), dict):
            raise CapabilityConfigError("new_config is required", fields_invalid=["new_config"])
        new = self._parse_config(body["new_config"])
        new_json = to_plain(new)
        old, old_json = self.capability.config, self._config_json
        changed = changed_fields(old_json, new_json)
        triggers = reload_triggers(self.capability)
        fired = list(dict.fromkeys(triggers[name] for name in changed if name in triggers))
        with entered(Call(self._sink, name="reconfigure")):
            for trigger in fired:
                fire_release(self.capability, trigger)
            self.capability.config, self._config_json = new, new_json
            if changed:
                self.capability.reconfigure(old, new)
        return _json({"status": "reconfigured", "changed": changed, "released": fired})

    def _config_options(self, request: Request) -> Response:
        with entered(Call(self._sink, name="config_options")):
            options = self.capability.get_config_options()
        return _json({name: _options_to_plain(domain) for name, domain in options.items()})

    def _hook(self, name: str, status: str) -> Callable[[Request], Response]:
        def run(request: Request) -> Response:
            call = Call(self._sink, name=name)
            self._start(call, request)
            try:
                with entered(call):
                    getattr(self.capability, name)()
            except Exception as error:
                raise self._meaning(error, call) from error
            finally:
                self._end(call)
            return _json({"status": status})

        return run

    def _run_cleanup(self, request: Request) -> Response:
        self.run_cleanup()
        return _json({"status": "cleaned"})

    def _release(self, request: Request) -> Response:
        level = _object(request.body).get("level", "unload")
        if not isinstance(level, str):
            raise CapabilityInputError("level must be text", fields_invalid=["level"])
        with entered(Call(self._sink, name="release")):
            reply = self.capability.release(level)
        if reply is None:
            return _json({"status": "not_supported"})
        body: Dict[str, Any] = {"status": "released", "held": reply.held}
        if reply.freed_mb is not None:
            body["freed_mb"] = reply.freed_mb
        return _json(body)

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

    # Calls

    def _execute(self, request: Request) -> Response:
        body = _object(request.body)
        method, kwargs = self._choose(body)
        if method.streaming:
            message = f"{method.name} streams; call it by /execute_stream"
            raise CapabilityError(message, code="METHOD_NOT_SUPPORTED")
        call = Call(self._sink, Envelope.from_wire(body.get("envelope")), method.name)
        return self._answer(request, call, lambda: self._run(method, body, kwargs, call))

    def _run(
        self, method: TypedMethod, body: Mapping[str, Any], kwargs: Dict[str, Any], call: Call
    ) -> Any:
        values = method.bind_input(_array(body, "args"), kwargs)
        self._require_config()
        return method.encode_output(method.invoke(self.capability, values, call))

    def _answer(self, request: Request, call: Call, run: Callable[[], Any]) -> Response:
        self._start(call, request)
        try:
            with entered(call):
                encoded = _encode_result(run())
            return Response(200, encoded)
        except Exception as error:
            meant = self._meaning(error, call)
            cancelled = getattr(meant, "code", "") == "CAPABILITY_CANCELLED"
            return self._failure(meant, 409 if cancelled else 500, call)
        finally:
            self._end(call)

    def _execute_stream(self, request: Request) -> Response:
        body = _object(request.body)
        call = Call(self._sink, Envelope.from_wire(body.get("envelope")))
        self._start(call, request)
        return Response(200, self._lines(body, call))

    def _lines(self, body: Mapping[str, Any], call: Call) -> Iterator[bytes]:
        try:
            with entered(call):
                # A generator's context is its consumer's; both are this connection's thread.
                for chunk in self._chunks(body, call):
                    yield _encode_result(chunk) + b"\n"
        except Exception as error:
            yield to_json({"_job_error": self._job_error(self._meaning(error, call), call)}) + b"\n"
        finally:
            self._end(call)

    def _chunks(self, body: Mapping[str, Any], call: Call) -> Iterator[Any]:
        method, kwargs = self._choose(body)
        call.name = method.name
        values = method.bind_input(_array(body, "args"), kwargs)
        self._require_config()
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
        call = Call(self._sink, Envelope.from_wire(body.get("envelope")), f"{task}.{name}")
        adapter, kwargs = bound.adapter, _members(body, "kwargs")
        chosen = method

        def run() -> Any:
            self._require_config()
            result = chosen.invoke(adapter, chosen.bind_input([], kwargs), call)
            return chosen.encode_output(list(result) if chosen.streaming else result)

        return self._answer(request, call, lambda: self._accounted(task, name, call, run))

    def _accounted(self, task: str, method: str, call: Call, run: Callable[[], Any]) -> Any:
        started = time.monotonic()
        account: Dict[str, Any] = {"task": task, "method": method, "ok": False}
        try:
            result = run()
            account["ok"] = True
            return result
        except Exception as error:
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

    def _require_config(self) -> None:
        if not self._configured and self.capability.config is None:
            raise CapabilityConfigError("the capability has no configuration yet")

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


def _status_of(error: CapabilityError) -> int:
    if error.code == "REQUEST_TOO_LARGE":
        return 413
    # A body that is no JSON, and a config with bad fields; what a call raises is answered as 500.
    bad_request = ("CONFIG_INVALID", "CAPABILITY_INPUT")
    return 400 if error.code in bad_request else 500


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


def _options_to_plain(domain: FieldOptions) -> Dict[str, Any]:
    options = [to_plain({**option._asdict()}) for option in domain.options]
    return {"options": options, "constraints": to_plain(dict(domain.constraints))}


