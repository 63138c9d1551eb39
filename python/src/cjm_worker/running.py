"""The calls that run in a worker."""

import threading
from typing import Callable, Dict, List, Optional

from .calls import Call
from .control import FrameSink


class RunningCalls:
    """Which calls run, what the last one used and reported; safe to use from any thread."""

    def __init__(self, sink: FrameSink) -> None:
        self._sink = sink
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._running: List[Call] = []
        self._last: Optional[Call] = None
        #: What the latest call that reported any used.
        self.usage: Dict[str, float] = {}

    def start(self, call: Call) -> None:
        """Adds a call that begins now; ``end`` takes it out again."""
        with self._lock:
            self._running.append(call)
            self._last = call

    def end(self, call: Call) -> None:
        """Removes a call; what it reported is written before this returns. May be repeated."""
        with self._lock:
            if call in self._running:
                self._running.remove(call)
                if not self._running:
                    self._changed.notify_all()
            if call.usage:
                self.usage = dict(call.usage)
        # What the call reported arrives before its answer does.
        self._sink.flush_job(call.job_id)

    def cancel_where(self, chosen: Callable[[Call], bool], reason: str) -> int:
        """Cancels the running calls ``chosen`` says yes to; the number of them."""
        with self._lock:
            calls = [call for call in self._running if chosen(call)]
        for call in calls:
            call.cancel(reason)
        return len(calls)

    def cancel_all(self, reason: str) -> int:
        """Cancels every running call; the number of them."""
        return self.cancel_where(lambda call: True, reason)

    def wait_idle(self, timeout: float) -> bool:
        """Waits until no call runs; False when the time is up first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout)

    def latest(self, job: Optional[str]) -> Optional[Call]:
        """The call of a job that runs, or without a job the one that began last."""
        with self._lock:
            if job is None:
                return self._last
            return next((call for call in reversed(self._running) if call.job_id == job), None)
