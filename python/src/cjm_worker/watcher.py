"""One thread that accepts connections, notices closed ones and ends calls at their deadline."""

import logging
import select
import selectors
import socket
import threading
import time
from typing import Callable, Dict, Optional, Protocol, Set, Tuple

from .calls import Call

_log = logging.getLogger("cjm_worker")

_CLOSED = "the caller closed the connection"
#: A far deadline is looked at again; a longer wait than this overflows the system call.
_LONGEST_WAIT_SECONDS = 3600.0


def _cancel_apart(call: Call, reason: str) -> None:
    """Cancels in a thread of its own: a tool's slow callback must not hold up the watcher."""
    threading.Thread(target=call.cancel, args=(reason,), name="cjm-cancel", daemon=True).start()


class HangUps(Protocol):
    """Cancels the call of a connection whose caller closes it."""

    def connected(self, connection: socket.socket) -> None:
        """A connection was accepted; called in the watcher's thread."""
        ...

    def begin(self, connection: socket.socket, call: Call) -> None:
        """The connection has a call now; it has at most one."""
        ...

    def end(self, connection: socket.socket) -> None:
        """The connection has no call any more."""
        ...

    def disconnected(self, connection: socket.socket) -> None:
        """The connection is about to be closed."""
        ...


class EpollHangUps:
    """Linux: the kernel tells of the end of a connection alone, so that a call costs nothing."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._poll = select.epoll()
        self._lock = threading.Lock()
        self._calls: Dict[int, Call] = {}
        self._closed: Set[int] = set()
        selector.register(self._poll, selectors.EVENT_READ, self._on_hang_up)

    def connected(self, connection: socket.socket) -> None:
        # The end of the number's last owner may have been told after that one was forgotten.
        with self._lock:
            self._closed.discard(connection.fileno())
        self._poll.register(connection.fileno(), select.EPOLLRDHUP | select.EPOLLONESHOT)

    def begin(self, connection: socket.socket, call: Call) -> None:
        number = connection.fileno()
        with self._lock:
            self._calls[number] = call
            closed = number in self._closed
        if closed:
            _cancel_apart(call, _CLOSED)

    def end(self, connection: socket.socket) -> None:
        with self._lock:
            self._calls.pop(connection.fileno(), None)

    def disconnected(self, connection: socket.socket) -> None:
        number = connection.fileno()
        with self._lock:
            self._calls.pop(number, None)
            self._closed.discard(number)
        try:
            self._poll.unregister(number)
        except OSError:
            pass

    def _on_hang_up(self) -> None:
        # Connections are accepted in this thread: none of these numbers can be a newer one's.
        for number, _ in self._poll.poll(0):
            with self._lock:
                self._closed.add(number)
                call = self._calls.get(number)
            if call is not None:
                _cancel_apart(call, _CLOSED)


class PeekingHangUps:
    """Elsewhere: while a call runs, its connection is read ahead by one byte."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        # kqueue takes new descriptors while another thread waits in it.
        self._selector = selector

    def connected(self, connection: socket.socket) -> None:
        pass

    def begin(self, connection: socket.socket, call: Call) -> None:
        def on_readable() -> None:
            try:
                closed = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return
            except OSError:
                closed = True
            self.end(connection)
            if closed:
                _cancel_apart(call, _CLOSED)

        self.end(connection)
        self._selector.register(connection, selectors.EVENT_READ, on_readable)

    def end(self, connection: socket.socket) -> None:
        try:
            self._selector.unregister(connection)
        except (KeyError, ValueError, OSError):
            pass

    def disconnected(self, connection: socket.socket) -> None:
        self.end(connection)


class Deadlines:
    """When the running calls are due; only those that run are kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: Dict[socket.socket, Tuple[float, Call]] = {}

    def add(self, connection: socket.socket, call: Call, seconds: float) -> bool:
        """True if this call is due before every other."""
        due = time.monotonic() + seconds
        with self._lock:
            first = all(due < other for other, _ in self._due.values())
            self._due[connection] = (due, call)
        return first

    def remove(self, connection: socket.socket) -> None:
        if self._due:
            with self._lock:
                self._due.pop(connection, None)

    def cancel_due(self) -> Optional[float]:
        """Cancels what is due; the seconds until the next call is, `None` without one."""
        if not self._due:
            return None
        now = time.monotonic()
        with self._lock:
            passed = [(key, call) for key, (due, call) in self._due.items() if due <= now]
            for connection, _ in passed:
                del self._due[connection]
            next_due = min((due for due, _ in self._due.values()), default=None)
        for _, call in passed:
            _cancel_apart(call, "deadline")
        return None if next_due is None else min(next_due - now, _LONGEST_WAIT_SECONDS)


class Watcher:
    """The thread that accepts connections and cancels calls nobody waits for any more."""

    def __init__(
        self,
        listener: socket.socket,
        accept: Callable[[socket.socket], None],
        hang_ups: Optional[Callable[[selectors.BaseSelector], HangUps]] = None,
    ) -> None:
        self._listener = listener
        self._accept = accept
        self._selector = selectors.DefaultSelector()
        make = hang_ups or (EpollHangUps if hasattr(select, "epoll") else PeekingHangUps)
        self._hang_ups = make(self._selector)
        self._deadlines = Deadlines()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ, self._on_connection)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, self._on_wake)

    def watch_control(self, control: socket.socket, on_end: Callable[[], None]) -> None:
        """Calls ``on_end`` when the host closes its end of the control stream."""

        def on_readable() -> None:
            try:
                ended = control.recv(4096) == b""
            except OSError:
                ended = True
            if ended:
                on_end()

        self._selector.register(control, selectors.EVENT_READ, on_readable)

    def begin(self, connection: socket.socket, call: Call) -> None:
        """Cancels the call when its caller closes the connection or its deadline passes."""
        self._hang_ups.begin(connection, call)
        deadline_ms = call.envelope.deadline_ms
        if deadline_ms is not None and self._deadlines.add(connection, call, deadline_ms / 1000):
            self._wake_writer.send(b"x")

    def end(self, connection: socket.socket) -> None:
        """The connection's call is answered, or it had none."""
        self._hang_ups.end(connection)
        self._deadlines.remove(connection)

    def disconnected(self, connection: socket.socket) -> None:
        """Forgets a connection that is about to be closed."""
        self._deadlines.remove(connection)
        self._hang_ups.disconnected(connection)

    def run(self) -> None:
        """Serves until the process ends."""
        while True:
            for key, _ in self._selector.select(self._deadlines.cancel_due()):
                try:
                    key.data()
                except Exception:
                    # Without this thread no one would accept connections or notice a cancel.
                    _log.exception("watching a connection failed")

    def _on_wake(self) -> None:
        self._wake_reader.recv(4096)

    def _on_connection(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # Out of descriptors, most likely: the connection waits, and so must this thread.
            time.sleep(0.05)
            return
        self._hang_ups.connected(connection)
        self._accept(connection)
