"""The limits of a Python worker, on a Unix socket: `bare.py <socket> [http.server|socket]`.

``http.server`` is what the standard library has. ``socket`` is the least that answers: one thread a
connection, a request's head split off and never parsed. Both answer the JSON they get.
"""

import json
import socket
import socketserver
import sys
import threading


def answer(body: bytes) -> bytes:
    return json.dumps(json.loads(body), separators=(",", ":")).encode()


def serve_connection(connection: socket.socket) -> None:
    buffer = b""
    while True:
        while b"\r\n\r\n" not in buffer:
            data = connection.recv(65536)
            if not data:
                return
            buffer += data
        head, _, buffer = buffer.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        parts = [buffer]
        have = len(buffer)
        while have < length:
            parts.append(connection.recv(1 << 20))
            have += len(parts[-1])
        body = answer(b"".join(parts))
        buffer = b""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


def serve_sockets(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(connection,), daemon=True).start()


def serve_http(path: str) -> None:
    from http.server import BaseHTTPRequestHandler

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_POST(self) -> None:
            body = answer(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

    with Server(path, Handler) as server:
        print("ready", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    kinds = {"http.server": serve_http, "socket": serve_sockets}
    kinds[sys.argv[2] if len(sys.argv) > 2 else "http.server"](sys.argv[1])
