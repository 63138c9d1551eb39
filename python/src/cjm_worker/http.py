"""A small HTTP/1.1 server for one trusted client: one thread a connection, keep-alive, bounded.

Written by hand because ``http.server`` brings ``ssl`` and ``email``, which cost an idle worker more
memory and start time than everything else in this package.
"""

import socket
import threading
from typing import Callable, Optional, Set
from urllib.parse import parse_qsl

from .connection import BadRequest, Connection, Head
from .messages import Request
from .watcher import Watcher
from .worker import Worker

_MAX_CONNECTIONS = 256
#: A peer that has not shown the token yet is not waited for longer than this.
_STRANGER_TIMEOUT_SECONDS = 10.0


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
            connection = Connection(socket_)
            while self._serve_one(connection):
                pass
        except OSError:
            pass  # the caller is gone; a running call was cancelled by the watcher
        finally:
            self.watcher.disconnected(socket_)
            self._open.discard(socket_)
            socket_.close()
            self._slots.release()

    def _serve_one(self, connection: Connection) -> bool:
        try:
            head = connection.read_head()
            if head is None:
                return False
            if self._is_refused(head, connection):
                return False
            if connection.socket.gettimeout() is not None:
                connection.socket.settimeout(None)
            body = connection.read_body(head)
        except BadRequest as error:
            connection.write(self._worker.refuse(error.status, str(error)), False)
            connection.drain()
            return False
        path, _, query = head.target.partition("?")
        begin = self.watcher.begin
        request = Request(
            head.method,
            path,
            dict(parse_qsl(query)) if query else {},
            body,
            lambda call: begin(connection.socket, call),
        )
        response = self._worker.handle(request)
        if isinstance(response.body, bytes):
            self.watcher.end(connection.socket)
            connection.write(response, head.keep_alive)
        else:
            connection.write_stream(response.body)
            self.watcher.end(connection.socket)
        return head.keep_alive

    def _is_refused(self, head: Head, connection: Connection) -> bool:
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

    def _has_token(self, head: Head) -> bool:
        given = head.headers.get("authorization", "").encode("utf-8", "replace")
        expected = self._authorization
        return expected is not None and self._is_same(given, expected)

    def _is_same(self, given: bytes, expected: bytes) -> bool:
        from hmac import compare_digest  # loads OpenSSL, which an idle worker does not need

        self._is_same = compare_digest  # type: ignore[method-assign]
        return compare_digest(given, expected)
