"""HTTP/1.1 on one socket: requests read within their limits, responses written."""

import os
import socket
from typing import Dict, NamedTuple, Optional, Tuple

from .bounds import BODY_MAX_BYTES
from .messages import Lines, Response

CRLF = "\r\n"
_HEAD_MAX_BYTES = 64 * 1024
#: Small enough for the allocator to hand the same buffer out again.
_READ_BYTES = 64 * 1024
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


class BadRequest(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    method: str
    target: str
    headers: Dict[str, str]
    keep_alive: bool


class Connection:
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

    def read_head(self) -> Optional[Head]:
        """The next request's head; `None` when the peer closed before one began."""
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > _HEAD_MAX_BYTES:
                raise BadRequest(400, "the request head is over 64 KiB")
            if not self._receive():
                return None
        text = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        return parse_head(text)

    def read_body(self, head: Head) -> bytes:
        """The body, refused as soon as it is known to be over the limit."""
        if head.headers.get("expect", "").lower() == "100-continue":
            self.socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        encoding = head.headers.get("transfer-encoding")
        if encoding is not None:
            if encoding.lower() != "chunked" or "content-length" in head.headers:
                raise BadRequest(400, "only chunked transfer encoding is understood")
            return self._read_chunked()
        length = head.headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise BadRequest(400, "content-length is not a number")
        if len(length) > 9 or int(length) > BODY_MAX_BYTES:
            raise BadRequest(413, f"the body is over {BODY_MAX_BYTES} bytes")
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
                raise BadRequest(400, "a chunk has no length")
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
                raise BadRequest(400, "a chunk has no length")
            if len(body) + size > BODY_MAX_BYTES:
                raise BadRequest(413, f"the body is over {BODY_MAX_BYTES} bytes")
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


def parse_head(text: str) -> Head:
    first, *lines = text.split(CRLF)
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
        raise BadRequest(400, "not an HTTP/1.1 request")
    headers: Dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise BadRequest(400, "a header has no name")
        headers[name.lower()] = value.strip()
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (
        parts[2] == "HTTP/1.1" or "keep-alive" in connection
    )
    return Head(parts[0], parts[1], headers, keep_alive)


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
