"""A small HTTP/1.1 server for one trusted client: one thread a connection, keep-alive, bounded.

Written by hand because ``http.server`` brings ``ssl`` and ``email``, which cost an idle worker more
memory and start time than everything else in this package.
"""

import heapq
import itertools
import logging
import os
import selectors
import socket
import threading
import time
from typing import Callable, Dict, List, NamedTuple, Optional, Set, Tuple
from urllib.parse import parse_qsl

from .bounds import BODY_MAX_BYTES
from .calls import Call
from .worker import Lines, Request, Response, Worker

_log = logging.getLogger("cjm_worker")

CRLF = "\r\n"
_HEAD_MAX_BYTES = 64 * 1024
#: Small enough for the allocator to hand the same buffer out again.
_READ_BYTES = 64 * 1024
_MAX_CONNECTIONS = 256
#: A peer that has not shown the token yet is not waited for longer than this.
_STRANGER_TIMEOUT_SECONDS = 10.0
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class _BadRequest(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Head(NamedTuple):
    method: str
    target: str
    headers: Dict[str, str]
    keep_alive: bool


def _cancel_apart(call: Call, reason: str) -> None:
    """Cancels in a thread of its own: a tool's slow callback must not hold up the watcher."""
    threading.Thread(target=call.cancel, args=(reason,), name="cjm-cancel", daemon=True).start()


class Watcher:
    """One thread that accepts connections, notices closed ones and ends calls at their deadline."""

    def __init__(self, listener: socket.socket, accept: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._accept = accept
        # epoll and kqueue take new descriptors while another thread waits in them.
        self._selector = selectors.DefaultSelector()
        self._deadlines: List[Tuple[float, int, Call]] = []
        self._order = itertools.count()
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

    def watch_call(self, connection: socket.socket, call: Call) -> None:
        """Cancels the call when its caller closes the connection or its deadline passes."""

        def on_readable() -> None:
            try:
                closed = connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
            except BlockingIOError:
                return
            except OSError:
                closed = True
            self.forget(connection)
            if closed:
                _cancel_apart(call, "the caller closed the connection")

        self.forget(connection)
        self._selector.register(connection, selectors.EVENT_READ, on_readable)
        if call.envelope.deadline_ms is not None:
            due = time.monotonic() + call.envelope.deadline_ms / 1000
            heapq.heappush(self._deadlines, (due, next(self._order), call))
            self._wake_writer.send(b"x")

    def forget(self, connection: socket.socket) -> None:
        """Stops watching a connection; does nothing for one that is not watched."""
        try:
            self._selector.unregister(connection)
        except (KeyError, ValueError, OSError):
            pass

    def run(self) -> None:
        """Serves until the process ends."""
        while True:
            for key, _ in self._selector.select(self._seconds_to_deadline()):
                try:
                    key.data()
                except Exception:
                    # Without this thread no one would accept connections or notice a cancel.
                    _log.exception("watching a connection failed")
            now = time.monotonic()
            while self._deadlines and self._deadlines[0][0] <= now:
                _cancel_apart(heapq.heappop(self._deadlines)[2], "deadline")

    def _seconds_to_deadline(self) -> Optional[float]:
        if not self._deadlines:
            return None
        # A far deadline is looked at again; a longer wait than this overflows the system call.
        return min(max(0.0, self._deadlines[0][0] - time.monotonic()), 3600.0)

    def _on_wake(self) -> None:
        self._wake_reader.recv(4096)

    def _on_connection(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            # Out of descriptors, most likely: the connection waits, and so must this thread.
            time.sleep(0.05)
            return
        self._accept(connection)


class Server:
    """Serves a worker on a listening socket; every request must carry the token."""

    def __init__(
        self, worker: Worker, listener: socket.socket, on_refused: Callable[[str], None]
    ) -> None:
        self._worker = worker
        self._on_refused = on_refused
        self._authorization: Optional[bytes] = None
        self._slots = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self._listener = listener
        self._open: Set[socket.socket] = set()
        self.watcher = Watcher(listener, self._accept)

    def allow(self, token: str) -> None:
        """Lets requests in that carry this token; before this, none are."""
        self._authorization = f"Bearer {token}".encode()

    def start(self) -> None:
        """Serves in threads of its own."""
        threading.Thread(target=self.watcher.run, name="cjm-watch", daemon=True).start()

    def abandon(self) -> None:
        """Closes every socket in a forked child, which would keep them open past the worker."""
        for connection in [self._listener, *self._open]:
            connection.close()

    def _accept(self, connection: socket.socket) -> None:
        if not self._slots.acquire(blocking=False):
            connection.close()
            return
        if connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            thread = threading.Thread(
                target=self._serve, args=(connection,), name="cjm-call", daemon=True
            )
            thread.start()
        except RuntimeError:  # no more threads
            connection.close()
            self._slots.release()

    def _serve(self, socket_: socket.socket) -> None:
        socket_.settimeout(_STRANGER_TIMEOUT_SECONDS)
        self._open.add(socket_)
        try:
            connection = _Connection(socket_)
            while self._serve_one(connection):
                pass
        except OSError:
            pass  # the caller is gone; a running call was cancelled by the watcher
        finally:
            self.watcher.forget(socket_)
            self._open.discard(socket_)
            socket_.close()
            self._slots.release()

    def _serve_one(self, connection: "_Connection") -> bool:
        try:
            head = connection.read_head()
            if head is None:
                return False
            if self._is_refused(head, connection):
                return False
            connection.socket.settimeout(None)
            body = connection.read_body(head)
        except _BadRequest as error:
            connection.write(self._worker.refuse(error.status, str(error)), False)
            connection.drain()
            return False
        path, _, query = head.target.partition("?")
        watch = self.watcher.watch_call
        request = Request(
            head.method,
            path,
            dict(parse_qsl(query)) if query else {},
            body,
            lambda call: watch(connection.socket, call),
        )
        response = self._worker.handle(request)
        if isinstance(response.body, bytes):
            self.watcher.forget(connection.socket)
            connection.write(response, head.keep_alive)
        else:
            connection.write_stream(response.body)
            self.watcher.forget(connection.socket)
        return head.keep_alive

    def _is_refused(self, head: _Head, connection: "_Connection") -> bool:
        if not self._has_token(head):
            self._on_refused("a missing or wrong token")
            connection.write(self._worker.refuse(401, "a valid token is required"), False)
            return True
        # On TCP any web page of a local browser can connect.
        address = connection.tcp_address()
        hosts = (address, address.replace("127.0.0.1", "localhost"))
        if address and ("origin" in head.headers or head.headers.get("host") not in hosts):
            self._on_refused("a foreign Host or Origin")
            connection.write(self._worker.refuse(403, "a foreign Host or Origin"), False)
            return True
        return False

    def _has_token(self, head: _Head) -> bool:
        import hmac  # loads OpenSSL, which a worker that is only started does not need

        given = head.headers.get("authorization", "").encode("utf-8", "replace")
        expected = self._authorization
        return expected is not None and hmac.compare_digest(given, expected)


class _Connection:
    """Reads requests from a socket and writes responses to it."""

    def __init__(self, socket_: socket.socket) -> None:
        self.socket = socket_
        self._buffer = bytearray()

    def tcp_address(self) -> str:
        """``127.0.0.1:<port>`` of this side; empty on a Unix socket."""
        if self.socket.family != socket.AF_INET:
            return ""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def _receive(self) -> bool:
        data = self.socket.recv(_READ_BYTES)
        self._buffer += data
        return bool(data)

    def read_head(self) -> Optional[_Head]:
        """The next request's head; `None` when the peer closed before one began."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_MAX_BYTES:
                raise _BadRequest(400, "the request head is over 64 KiB")
            if not self._receive():
                return None
        text = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        return _parse_head(text)

    def read_body(self, head: _Head) -> bytes:
        """The body, refused as soon as it is known to be over the limit."""
        if head.headers.get("expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        encoding = head.headers.get("transfer-encoding")
        if encoding is not None:
            if encoding.lower() != "chunked" or "content-length" in head.headers:
                raise _BadRequest(400, "only chunked transfer encoding is understood")
            return self._read_chunked()
        length = head.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise _BadRequest(400, "content-length is not a number")
        if len(length) > 9 or int(length) > BODY_MAX_BYTES:
            raise _BadRequest(413, f"the body is over {BODY_MAX_BYTES} bytes")
        return self._read_exactly(int(length))

    def _read_exactly(self, length: int) -> bytes:
        body = bytearray(self._buffer[:length])
        del self._buffer[:length]
        have = len(body)
        body.extend(bytes(length - have))
        with memoryview(body) as rest:
            while have < length:
                count = self.socket.recv_into(rest[have:])
                if count == 0:
                    raise ConnectionError("the request ended early")
                have += count
        return bytes(body)

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > 8192:
                raise _BadRequest(400, "a chunk has no length")
            if not self._receive():
                raise ConnectionError("the request ended early")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _read_chunked(self) -> bytes:
        body = bytearray()
        while True:
            digits = self._read_line().partition(b";")[0].strip()
            try:
                size = int(digits, 16) if 0 < len(digits) <= 8 else -1
            except ValueError:
                size = -1
            if size < 0:
                raise _BadRequest(400, "a chunk has no length")
            if len(body) + size > BODY_MAX_BYTES:
                raise _BadRequest(413, f"the body is over {BODY_MAX_BYTES} bytes")
            if size == 0:
                while self._read_line():
                    pass
                return bytes(body)
            body += self._read_exactly(size)
            self._read_line()

    def write(self, response: Response, keep_alive: bool) -> None:
        """Writes a response with a body of known length."""
        body = response.body if isinstance(response.body, bytes) else b""
        reason = _REASONS.get(response.status, "Unknown")
        head = (
            f"HTTP/1.1 {response.status} {reason}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n{'' if keep_alive else 'Connection: close' + CRLF}\r\n"
        )
        self.socket.sendall(head.encode("ascii") + body)

    def write_stream(self, lines: Lines) -> None:
        """Writes one HTTP chunk a line; closing early closes the iterator."""
        head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n"
        try:
            self.socket.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode("ascii"))
            for line in lines:
                self.socket.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            self.socket.sendall(b"0\r\n\r\n")
        finally:
            lines.close()

    def drain(self) -> None:
        """Reads what is still arriving, for a while, so that the peer gets to see the answer."""
        self.socket.settimeout(1.0)
        self.socket.shutdown(socket.SHUT_WR)
        limit = 4 * BODY_MAX_BYTES
        while limit > 0 and (data := self.socket.recv(256 * 1024)):
            limit -= len(data)


def _parse_head(text: str) -> _Head:
    first, *lines = text.split(CRLF)
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise _BadRequest(400, "not an HTTP/1.1 request")
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise _BadRequest(400, "a header has no name")
        headers[name.lower()] = value.strip()
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (
        parts[2] == "HTTP/1.1" or "keep-alive" in connection
    )
    return _Head(parts[0], parts[1], headers, keep_alive)


def listen(address: str) -> Tuple[socket.socket, str]:
    """A listening socket for ``unix:<path>`` or ``tcp:<host>:<port>``, and its final address.

    A Unix socket is usable by its owner only. Raises ValueError for an address of another form
    and OSError naming a path that cannot be bound.
    """
    kind, _, rest = address.partition(":")
    if kind == "unix" and rest:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        previous = os.umask(0o177)
        try:
            listener.bind(rest)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror or error}: {rest}") from error
        finally:
            os.umask(previous)
        listener.listen(128)
        return listener, address
    host, _, port = rest.rpartition(":")
    if kind != "tcp" or host not in ("127.0.0.1", "localhost") or not port.isdigit():
        raise ValueError(f"CJM_LISTEN is {address!r}, not unix:<path> or tcp:127.0.0.1:<port>")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", int(port)))
    listener.listen(128)
    return listener, f"tcp:127.0.0.1:{listener.getsockname()[1]}"
