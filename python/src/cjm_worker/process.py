"""Runs a capability as a worker process: greeting, logging, signals, and the end."""

import atexit
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import Any, Callable, List, NoReturn, Optional, Type

from .calls import current_call
from .capability import Capability
from .connection import listen
from .control import ControlStream, claim_control_socket
from .errors import utc_now
from .http import Server
from .stats import descendants
from .surface import load_attribute
from .worker import PROTOCOL_VERSION, Worker

_log = logging.getLogger("cjm_worker")
_LEVELS = {"WARN": "warning", "FATAL": "critical"}
_EXIT_HANDLERS_SECONDS = 1.0
_HELLO_MAX_BYTES = 64 * 1024


class _Terminated(BaseException):
    """Raised in the main thread by SIGTERM."""


class _ControlHandler(logging.Handler):
    """Sends every log record as a frame that carries the job it was written in."""

    def __init__(self, control: ControlStream) -> None:
        super().__init__()
        self._control = control

    def emit(self, record: logging.LogRecord) -> None:
        try:
            call = current_call()
            exc = self.format_exception(record)
            frame = {
                "type": "log",
                "ts": utc_now(),
                "level": _LEVELS.get(record.levelname, record.levelname.lower()),
                "logger": record.name,
                "message": record.getMessage(),
                "exc": exc,
                "job_id": call.job_id if call else None,
            }
            self._control.send(frame)
        except Exception:
            self.handleError(record)

    @staticmethod
    def format_exception(record: logging.LogRecord) -> Optional[str]:
        if not record.exc_info or record.exc_info[0] is None:
            return None
        return logging.Formatter().formatException(record.exc_info)


def _capture_logging(control: ControlStream) -> None:
    root = logging.getLogger()
    root.addHandler(_ControlHandler(control))
    level = os.environ.get("CJM_LOG_LEVEL", "info").upper()
    root.setLevel(level if isinstance(logging.getLevelName(level), int) else "INFO")


def read_hello(connection: socket.socket) -> str:
    """The token of the host's greeting.

    Raises ConnectionError when the stream ends first, ValueError when the greeting is not one.
    """
    line = bytearray()
    while not line.endswith(b"\n"):
        # Byte by byte, so that nothing after the greeting is taken from the watcher.
        byte = connection.recv(1)
        if not byte:
            raise ConnectionError("the control stream ended before the greeting")
        line += byte
        if len(line) > _HELLO_MAX_BYTES:
            raise ValueError("the greeting is too long")
    hello = json.loads(bytes(line))
    if not isinstance(hello, dict) or hello.get("type") != "hello":
        raise ValueError("the first line of the control stream is no greeting")
    if hello.get("protocol") != PROTOCOL_VERSION:
        raise ValueError(f"the host speaks protocol {hello.get('protocol')}, this worker 1")
    token = hello.get("token")
    if not isinstance(token, str) or len(token) < 32:
        raise ValueError("the greeting has no token")
    return token


def _kill_children(spare_tracker: bool = False) -> None:
    """Kills every descendant, but on request the one that unlinks shared memory after us."""
    tracker = sys.modules.get("multiprocessing.resource_tracker")
    spared = getattr(getattr(tracker, "_resource_tracker", None), "_pid", None)
    with contextlib.suppress(Exception):
        for process in descendants(os.getpid())[1:]:
            if not (spare_tracker and process.pid == spared):
                with contextlib.suppress(OSError):
                    os.kill(process.pid, signal.SIGKILL)


def end_at_once(code: int = 1) -> NoReturn:
    """Kills everything this worker started, then ends it without any clean-up."""
    _kill_children()
    if os.getpgrp() == os.getpid():
        # The group is this worker's own: nothing of it may stay, itself included.
        with contextlib.suppress(OSError):
            os.killpg(0, signal.SIGKILL)
    os._exit(code)


def _end(control: ControlStream, address: str, code: int) -> NoReturn:
    control.send({"type": "bye", "code": code})
    control.flush()
    # Exit handlers run, but nothing of the tool can hold the process back.
    handlers = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    handlers.start()
    handlers.join(_EXIT_HANDLERS_SECONDS)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    if address.startswith("unix:"):
        with contextlib.suppress(OSError):
            os.unlink(address[len("unix:") :])
    _kill_children(spare_tracker=True)
    # Closing a socket with unread bytes resets it, and the host would lose the last frames.
    with contextlib.suppress(OSError):
        while control.connection.recv(65536, socket.MSG_DONTWAIT):
            pass
    os._exit(code)


def _require_control() -> socket.socket:
    connection = claim_control_socket()
    if connection is None or "CJM_LISTEN" not in os.environ:
        sys.stderr.write(
            "This is a cjm-substrate worker: the host starts it and hands it a control stream.\n"
            "Run it through cjm-ctl, or test it in process with cjm_worker.testing.\n"
        )
        raise SystemExit(2)
    if os.environ.get("CJM_PROTOCOL", "1") != str(PROTOCOL_VERSION):
        sys.stderr.write(f"CJM_PROTOCOL is {os.environ['CJM_PROTOCOL']}, this worker speaks 1\n")
        raise SystemExit(3)
    return connection


def _on_terminate(number: int, frame: Any) -> None:
    # A second signal, during clean-up, must not interrupt it.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise _Terminated


def _in_forked_children(do: Callable[[], None]) -> None:
    """A forked child neither speaks for this worker nor ends like it."""

    def in_child() -> None:
        do()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=in_child)


def serve(capability: Type[Capability]) -> NoReturn:
    """Serves a capability until the host ends it; never returns.

    Call it in the main thread. With ``CJM_INTROSPECT=1`` it prints instead, as the last line of
    stdout, the ``code`` section of the manifest. Exits with 2 when no host started this process.
    """
    _run(lambda: capability)


def serve_spec(spec: str) -> NoReturn:
    """Serves the capability ``module:Class`` names."""
    _run(lambda: load_attribute(spec), spec)


def _introspect(load: Callable[[], Any], spec: str) -> NoReturn:
    from .introspect import describe

    sys.stdout.write(json.dumps(describe(load(), spec), ensure_ascii=False) + "\n")
    raise SystemExit(0)


def _run(load: Callable[[], Any], spec: str = "") -> NoReturn:
    if os.environ.get("CJM_INTROSPECT") == "1":
        _introspect(load, spec)
    connection = _require_control()
    signal.signal(signal.SIGTERM, _on_terminate)
    signal.signal(signal.SIGINT, _on_terminate)
    for stream in (sys.stdout, sys.stderr):
        # The host reads lines as they are printed, not when a buffer is full.
        with contextlib.suppress(Exception):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    control = ControlStream(connection)
    _in_forked_children(control.abandon)
    _capture_logging(control)
    worker: Optional[Worker] = None
    address = ""
    try:
        gate = _Gate(connection)
        listener, address = listen(os.environ["CJM_LISTEN"])
        worker = _make_worker(load, control)
        server = Server(worker, listener, _Refusals(control))
        _in_forked_children(server.abandon)
        server.allow(gate.token())
        server.watcher.watch_control(connection, end_at_once)
        server.start()
        health = worker.health()
        del health["status"]
        control.send({"type": "ready", "address": address, **health})
        while True:
            threading.Event().wait()
    except _Terminated:
        _finish(worker)
        _end(control, address, 0)
    except SystemExit:
        raise
    except BaseException as error:
        _log.critical("the worker could not start: %s", error, exc_info=error)
        sys.excepthook(type(error), error, error.__traceback__)
        _end(control, address, 1)


class _Gate:
    """Reads the greeting while the author's module loads, and ends the worker with its host."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._token: Optional[str] = None
        self._error: Optional[Exception] = None
        self._loaded = threading.Event()
        self._thread = threading.Thread(target=self._read, name="cjm-hello", daemon=True)
        self._thread.start()

    def token(self) -> str:
        """Waits for the greeting. Raises what reading it raised."""
        self._loaded.set()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._token or ""

    def _read(self) -> None:
        try:
            self._token = read_hello(self._connection)
        except ConnectionError:
            end_at_once()
        except Exception as error:
            self._error = error
            return
        # An import can take minutes; a host that dies meanwhile ends it.
        while not self._loaded.wait(0.2):
            try:
                peeked = self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                peeked = b""
            if not peeked:
                end_at_once()


def _make_worker(load: Callable[[], Any], control: ControlStream) -> Worker:
    cls = load()
    if not (isinstance(cls, type) and issubclass(cls, Capability)):
        raise TypeError(f"{cls!r} is not a Capability class")
    if not cls.name or not cls.version:
        raise TypeError(f"{cls.__name__} needs a name and a version")
    specs: List[str] = [
        spec.strip() for spec in os.environ.get("CJM_ADAPTERS", "").split(",") if spec.strip()
    ]
    return Worker(cls(), control, specs)


class _Refusals:
    """Tells the host about refused requests, at most once a second."""

    def __init__(self, control: ControlStream) -> None:
        self._control = control
        self._lock = threading.Lock()
        self._count = 0
        self._next = 0.0

    def __call__(self, why: str) -> None:
        with self._lock:
            self._count += 1
            now = time.monotonic()
            if now < self._next:
                return
            message = f"refused {self._count} request(s), the last for {why}"
            self._count, self._next = 0, now + 1.0
        self._control.send({"type": "warning", "message": message})


def _finish(worker: Optional[Worker]) -> None:
    if worker is None:
        return
    worker.calls.cancel_all("the worker is ending")
    # Cleaning up under a call that still runs could break what it uses; the host's grace is 2 s.
    worker.calls.wait_idle(1.0)
    try:
        worker.run_cleanup()
    except Exception as error:
        _log.error("cleanup failed: %s", error, exc_info=error)
