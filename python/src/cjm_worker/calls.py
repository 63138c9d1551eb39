"""One running call: its identity, its cancellation and what it reports."""

import contextvars
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple, TypeVar

from .control import FrameSink
from .errors import CapabilityCancelledError, CapabilityTimeoutError
from .schema import to_plain

HEARTBEAT_SECONDS = 0.5

R = TypeVar("R")


@dataclass(frozen=True)
class Envelope:
    """Who asked for a call, and under which conditions; every member may be absent."""

    job_id: Optional[str] = None
    run_id: Optional[str] = None
    composition_id: Optional[str] = None
    node_id: Optional[str] = None
    actor: Optional[str] = None
    #: Flags of this call, such as ``{"force": true}``.
    control: Mapping[str, Any] = field(default_factory=dict)
    traceparent: Optional[str] = None
    #: Milliseconds the call may still take, counted from its arrival.
    deadline_ms: Optional[float] = None
    #: Existing folder for the files this call returns by reference.
    output_folder: Optional[str] = None
    capability_instance_id: Optional[str] = None

    @classmethod
    def from_wire(cls, data: Any) -> "Envelope":
        """Reads an envelope; unknown members are ignored, ill-typed ones are as good as absent."""
        values: Dict[str, Any] = {}
        for key, value in (data if isinstance(data, dict) else {}).items():
            expected = _ENVELOPE_TYPES.get(key)
            if expected is not None and isinstance(value, expected):
                values[key] = value
        return cls(**values)


_ENVELOPE_TYPES: Mapping[str, Tuple[type, ...]] = {
    **{member.name: (str,) for member in fields(Envelope)},
    "control": (dict,),
    "deadline_ms": (int, float),
}


class Call:
    """What an action may ask and tell while it runs; safe to use from any thread.

    An action gets it as a parameter annotated ``Call``, or through ``current_call()``.
    """

    def __init__(
        self, sink: FrameSink, envelope: Optional[Envelope] = None, name: str = ""
    ) -> None:
        self.envelope = envelope or Envelope()
        #: The action or task method that runs, or the name of a life-cycle hook.
        self.name = name
        self.progress = 0.0
        self.message = ""
        #: Sums of what this call used so far.
        self.usage: Dict[str, float] = {}
        self._sink = sink
        self._lock = threading.Lock()
        self._cancelled_by: Optional[str] = None
        self._callbacks: List[Callable[[], object]] = []
        self._output_folder: Optional[str] = self.envelope.output_folder
        self._has_folder = False

    @property
    def job_id(self) -> Optional[str]:
        return self.envelope.job_id

    @property
    def cancelled(self) -> bool:
        """True once this call was cancelled, its deadline passed or its caller is gone."""
        return self._cancelled_by is not None

    @property
    def output_folder(self) -> str:
        """Folder for the files this call returns by reference; made when it is first asked for."""
        with self._lock:
            if self._output_folder is None:
                import tempfile

                self._output_folder = tempfile.mkdtemp(prefix="cjm-output-")
            elif not self._has_folder:
                os.makedirs(self._output_folder, exist_ok=True)
            self._has_folder = True
            return self._output_folder

    def check_cancel(self) -> None:
        """Raises CapabilityCancelledError, or CapabilityTimeoutError after the deadline."""
        if self._cancelled_by is not None:
            raise self.cancel_error()

    def cancel_error(self) -> Exception:
        """The error that says why this call was cancelled."""
        if self._cancelled_by == "deadline":
            return CapabilityTimeoutError(f"the deadline of {self.name or 'the call'} passed")
        return CapabilityCancelledError(f"cancelled: {self._cancelled_by or 'by request'}")

    def on_cancel(self, callback: Callable[[], object]) -> None:
        """Runs ``callback`` once when this call is cancelled; at once if it already is."""
        with self._lock:
            if self._cancelled_by is None:
                self._callbacks.append(callback)
                return
        _run_callback(callback)

    @contextmanager
    def cancel_signal_to(self, callback: Callable[[], object]) -> Iterator[None]:
        """``with call.cancel_signal_to(process.terminate): process.wait()``"""
        self.on_cancel(callback)
        try:
            yield
        finally:
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)

    def cancel(self, reason: str) -> None:
        """Cancels this call; the first reason stands. Callbacks run in the order they came."""
        with self._lock:
            if self._cancelled_by is not None:
                return
            self._cancelled_by = reason
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            _run_callback(callback)

    def report_progress(self, progress: float, message: str = "") -> None:
        """Progress from 0 to 1, or -1 for unknown; sent at most ten times a second."""
        # NaN is not at least 0, so it is unknown too.
        self.progress = min(float(progress), 1.0) if progress >= 0 else -1.0
        self.message = message
        self._send_progress(message)

    @contextmanager
    def heartbeat(self, message: str = "", interval: float = HEARTBEAT_SECONDS) -> Iterator[None]:
        """Repeats the last progress message with the elapsed seconds while the block runs."""
        started = time.monotonic()
        stop = threading.Event()
        if message:
            self.message = message
        self._send_progress(self.message)

        def beat() -> None:
            while not stop.wait(interval):
                self._send_progress(f"{self.message} ({time.monotonic() - started:.1f}s)".lstrip())

        thread = threading.Thread(target=beat, name="cjm-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _send_progress(self, message: str) -> None:
        frame = {"job_id": self.job_id, "progress": self.progress, "message": message}
        self._sink.send({"type": "progress", **frame})

    def report_usage(self, units: Mapping[str, float]) -> None:
        """Adds measured usage, for instance tokens; units are summed, never interpreted."""
        numbers = {str(unit): float(amount) for unit, amount in units.items()}
        with self._lock:
            for unit, amount in numbers.items():
                self.usage[unit] = self.usage.get(unit, 0.0) + amount
        self._sink.send({"type": "usage", "job_id": self.job_id, "units": numbers})

    def record_account(self, event_type: str, payload: Optional[Mapping[str, Any]] = None) -> None:
        """Adds a row to the journal: references and hashes, never content."""
        plain = to_plain(dict(payload or {}))
        frame = {"job_id": self.job_id, "event_type": event_type, "payload": plain}
        self._sink.send({"type": "account", **frame})

    def report_memory(
        self, gpu_peak_mb: Optional[float] = None, host_peak_mb: Optional[float] = None
    ) -> None:
        """Reports the tool's own allocator peak, where it knows one."""
        frame = {"job_id": self.job_id, "gpu_peak_mb": gpu_peak_mb, "host_peak_mb": host_peak_mb}
        self._sink.send({"type": "memory", **frame})

    def bind(self, function: Callable[..., R]) -> Callable[..., R]:
        """The function, run as part of this call in whatever thread calls it.

        Give it to a thread of your own, so that its log lines carry this job.
        """

        def bound(*args: Any, **kwargs: Any) -> R:
            with entered(self):
                return function(*args, **kwargs)

        return bound


def _run_callback(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        import logging

        logging.getLogger("cjm_worker").exception("a cancel callback failed")


_current: "contextvars.ContextVar[Optional[Call]]" = contextvars.ContextVar(
    "cjm_call", default=None
)


def current_call() -> Optional[Call]:
    """The call this code runs for; `None` outside one."""
    return _current.get()


class entered:
    """Makes ``call`` the current one for the block."""

    __slots__ = ("_call", "_token")

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Call:
        self._token = _current.set(self._call)
        return self._call

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)
