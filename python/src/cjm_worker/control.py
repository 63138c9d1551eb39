"""The control stream: one end of a socket pair the host gave this worker.

Nothing a tool writes may block it or grow without limit: frames are queued and written by one
thread, log frames beyond 1 MiB are counted instead of kept, and progress is sent at most ten times
a second per job, the last value always arriving.
"""

import json
import os
import socket
import threading
import time
from collections import deque
from typing import Any, Deque, Dict, List, Mapping, Optional, Protocol, Tuple

from .errors import CapabilityFatalError, cut

FRAME_MAX_BYTES = 64 * 1024
LOG_BUFFER_BYTES = 1024 * 1024
PROGRESS_INTERVAL_SECONDS = 0.1

#: Frames a call's answer waits for are never dropped, so a tool that writes more than this waits.
_OTHER_BUFFER_BYTES = 4 * 1024 * 1024

Frame = Mapping[str, Any]


class FrameSink(Protocol):
    """Where frames go: the control stream, or a list in a test."""

    def send(self, frame: Frame) -> None:
        """Queues one frame; `None` members are left out."""
        ...

    def flush_job(self, job_id: Optional[str]) -> bool:
        """Waits until what a job reported is written; False when that took too long."""
        ...


def encode_frame(frame: Frame) -> bytes:
    """One line of at most 64 KiB; a log record that is longer is cut and says so.

    Raises CapabilityFatalError for any other frame that is too long, and what ``json`` raises for
    values JSON has no form for.
    """
    present = {key: value for key, value in frame.items() if value is not None}
    line = _dump(present)
    if len(line) <= FRAME_MAX_BYTES:
        return line
    if present["type"] == "log":
        return _cut_log(present)
    raise CapabilityFatalError(
        f"a {present['type']} frame of {len(line)} bytes is over the limit of {FRAME_MAX_BYTES}; "
        "report references and hashes, not content"
    )


def _dump(frame: Frame) -> bytes:
    try:
        text = json.dumps(frame, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8") + b"\n"
    except UnicodeEncodeError:
        return json.dumps(frame, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"


def _cut_log(frame: Dict[str, Any]) -> bytes:
    # A character takes at most 12 bytes of JSON (an escaped surrogate pair): this always fits.
    half = FRAME_MAX_BYTES // 32
    for limit in (FRAME_MAX_BYTES // 2 - 1024, FRAME_MAX_BYTES // 8, half):
        fields: Dict[str, Any] = {
            key: cut(str(frame[key]), limit) for key in ("message", "exc") if key in frame
        }
        shorter: Dict[str, Any] = {**frame, "logger": str(frame.get("logger", ""))[:200]}
        shorter.update(fields)
        line = _dump(shorter)
        if len(line) <= FRAME_MAX_BYTES:
            break
    return line


class ControlStream:
    """Owns the socket to the host; reads nothing but the greeting, writes frames."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._changed = threading.Condition()
        self._lines: Deque[Tuple[bool, bytes]] = deque()
        self._log_bytes = 0
        self._other_bytes = 0
        self._dropped = 0
        self._writing = False
        self._closed = False
        self._progress: Dict[str, Dict[str, Any]] = {}
        self._progress_due: Dict[str, float] = {}
        self._writer = threading.Thread(target=self._write, name="cjm-control", daemon=True)
        self._writer.start()

    def send(self, frame: Frame) -> None:
        """Queues one frame; progress frames replace an unsent one of the same job."""
        if frame["type"] == "progress":
            self._send_progress(dict(frame))
            return
        line = encode_frame(frame)
        with self._changed:
            if frame["type"] == "log":
                self._queue_log(line)
            else:
                self._changed.wait_for(self._has_room)
                # What a job reports about its end must not overtake its last progress.
                self._release_progress(str(frame.get("job_id") or ""))
                self._append(False, line)
            self._changed.notify_all()

    def flush(self, timeout: float = 2.0) -> bool:
        """Waits until every queued frame is written."""
        with self._changed:
            for job in list(self._progress):
                self._release_progress(job)
            self._changed.notify_all()
            return self._changed.wait_for(self._is_idle, timeout)

    def flush_job(self, job_id: Optional[str], timeout: float = 2.0) -> bool:
        """Sends the job's last progress now and waits until every queued frame is written."""
        with self._changed:
            self._release_progress(job_id or "")
            self._progress_due.pop(job_id or "", None)
            if self._is_idle():
                return True
            self._changed.notify_all()
            return self._changed.wait_for(self._is_idle, timeout)

    def abandon(self) -> None:
        """Stops writing, for a forked child that must not speak for its parent."""
        self._closed = True
        self._changed = threading.Condition()
        self.connection.close()

    def _is_idle(self) -> bool:
        return self._closed or not (self._lines or self._writing or self._dropped)

    def _has_room(self) -> bool:
        return self._closed or self._other_bytes < _OTHER_BUFFER_BYTES

    def _append(self, is_log: bool, line: bytes) -> None:
        if self._closed:
            return
        self._lines.append((is_log, line))
        if is_log:
            self._log_bytes += len(line)
        else:
            self._other_bytes += len(line)

    def _queue_log(self, line: bytes) -> None:
        if self._log_bytes + len(line) > LOG_BUFFER_BYTES:
            self._dropped += 1
        else:
            self._append(True, line)

    def _send_progress(self, frame: Dict[str, Any]) -> None:
        job = str(frame.get("job_id") or "")
        with self._changed:
            now = time.monotonic()
            self._progress[job] = frame
            if self._progress_due.get(job, 0.0) <= now:
                self._release_progress(job)
            self._changed.notify_all()

    def _release_progress(self, job: str) -> None:
        frame = self._progress.pop(job, None)
        if frame is not None:
            frame["message"] = cut(str(frame["message"]), 2048)
            self._append(False, encode_frame(frame))
            self._progress_due[job] = time.monotonic() + PROGRESS_INTERVAL_SECONDS

    def _write(self) -> None:
        while True:
            with self._changed:
                batch = self._next_batch()
            if batch is None:
                return
            try:
                self.connection.sendall(b"".join(line for _, line in batch))
            except OSError:
                self._stop()
                return
            with self._changed:
                self._writing = False
                for is_log, line in batch:
                    if is_log:
                        self._log_bytes -= len(line)
                    else:
                        self._other_bytes -= len(line)
                self._changed.notify_all()

    def _next_batch(self) -> Optional[List[Tuple[bool, bytes]]]:
        """Waits for frames; called with the lock held. `None` ends the thread."""
        while not (self._lines or self._dropped):
            if self._closed:
                return None
            self._changed.wait(self._seconds_to_progress())
            now = time.monotonic()
            for job in [job for job in self._progress if self._progress_due.get(job, 0.0) <= now]:
                self._release_progress(job)
        if self._dropped and not self._log_bytes:
            self._append(False, encode_frame({"type": "dropped", "n": self._dropped}))
            self._dropped = 0
        batch: List[Tuple[bool, bytes]] = []
        size = 0
        while self._lines and size < 4 * FRAME_MAX_BYTES:
            batch.append(self._lines.popleft())
            size += len(batch[-1][1])
        self._writing = True
        return batch

    def _seconds_to_progress(self) -> Optional[float]:
        if not self._progress:
            return None
        due = min(self._progress_due.get(job, 0.0) for job in self._progress)
        return max(0.0, due - time.monotonic())

    def _stop(self) -> None:
        with self._changed:
            self._closed = True
            self._lines.clear()
            self._writing = False
            self._changed.notify_all()


_claimed: Optional[socket.socket] = None


def claim_control_socket() -> Optional[socket.socket]:
    """Takes the descriptor the host named, once, and keeps it from every child process.

    Called when the package is imported, so that it happens before any code of the tool runs: a
    child that inherited the descriptor could speak for the worker.
    """
    global _claimed  # noqa: PLW0603 -- a process has one control stream
    number = os.environ.pop("CJM_CONTROL_FD", None)
    if _claimed is not None or number is None:
        return _claimed
    try:
        descriptor = int(number)
        os.set_inheritable(descriptor, False)
        _claimed = socket.socket(fileno=descriptor)
    except (OSError, ValueError):
        return None
    return _claimed
