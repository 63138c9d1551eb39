"""Helpers that the tests share."""

import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

SOURCE = Path(__file__).parents[1] / "src"
WIRE = Path(__file__).parents[2] / "test" / "fixtures" / "wire"
TOKEN = "test-token-" + "0123456789" * 4


def golden(name: str) -> Any:
    """A file of messages that the tests of both SDKs read."""
    return json.loads((WIRE / f"{name}.json").read_text(encoding="utf-8"))


class Process:
    """A worker process, its control stream and its HTTP surface."""

    def __init__(self, script: Path, folder: Path, hello: Optional[bytes] = None) -> None:
        self.frames: List[Dict[str, Any]] = []
        self._arrived = threading.Condition()
        self._ended = False
        self.control, theirs = socket.socketpair()
        self.path = str(folder / "w.sock")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(SOURCE),
            "PYTHONDONTWRITEBYTECODE": "1",
            "CJM_PROTOCOL": "1",
            "CJM_LISTEN": f"unix:{self.path}",
            "CJM_CONTROL_FD": str(theirs.fileno()),
            "CAPABILITY_DATA_DIR": str(folder),
        }
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        theirs.close()
        greeting = {"type": "hello", "protocol": 1, "token": TOKEN}
        self.control.sendall(hello or json.dumps(greeting).encode() + b"\n")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            with self.control.makefile("rb") as lines:
                for line in lines:
                    with self._arrived:
                        self.frames.append(json.loads(line))
                        self._arrived.notify_all()
        except (OSError, ValueError):
            pass
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def frame(self, fits: Callable[[Dict[str, Any]], bool]) -> Dict[str, Any]:
        """The first frame that fits, waited for."""

        def found() -> bool:
            return self._ended or any(fits(frame) for frame in self.frames)

        with self._arrived:
            assert self._arrived.wait_for(found, 20), f"no such frame: {self.frames[-5:]}"
            return next(frame for frame in self.frames if fits(frame))

    def ready(self) -> "Process":
        self.frame(lambda frame: frame["type"] == "ready")
        assert self.call("/initialize", {})[0] == 200
        return self

    def connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(self.path)
        return connection

    def send(self, connection: socket.socket, path: str, body: Any, token: str = TOKEN) -> None:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: worker\r\nAuthorization: Bearer {token}\r\n"
        head += f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
        connection.sendall(head.encode() + data)

    def raw(self, data: bytes) -> bytes:
        """The whole answer to bytes sent as they are, until the worker closes."""
        with self.connect() as connection:
            connection.sendall(data)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts)

    def call(self, path: str, body: Any, token: str = TOKEN) -> "tuple[int, Any]":
        with self.connect() as connection:
            self.send(connection, path, body, token)
            with connection.makefile("rb") as answer:
                head, _, text = answer.read().partition(b"\r\n\r\n")
        return int(head.split()[1]), json.loads(text)

    def execute(self, action: str, **kwargs: Any) -> "tuple[int, Any]":
        return self.call("/execute", {"kwargs": {**kwargs, "action": action}})

    def end(self) -> int:
        """The exit code, waited for."""
        code = self.process.wait(20)
        self._reader.join(20)
        return code

    def output(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.read().decode()

    def close(self) -> None:
        self.control.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Starts worker processes from the text of a script, and ends them."""
    started: List[Process] = []

    def begin(text: str, hello: Optional[bytes] = None) -> Process:
        folder = tmp_path_factory.mktemp("w")
        script = folder / "worker.py"
        script.write_text(text)
        process = Process(script, folder, hello)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.close()
