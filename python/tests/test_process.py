"""Worker processes: how they start, serve, and end. The conformance suite has the rest."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import SOURCE, TOKEN

TOOL = """
import logging, multiprocessing, os, subprocess, sys, threading, time
print("printed on import")
from cjm_worker import Capability, action, serve

class Tool(Capability):
    name = "tool"
    version = "1.0.0"

    @action(default=True)
    def echo(self, text: str = "") -> str:
        return text

    @action
    def descriptors(self) -> list:
        out = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, stdout=subprocess.PIPE)
        return out.stdout.decode().split()

    @action
    def environment(self) -> dict:
        return dict(os.environ)

    @action
    def fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            logging.getLogger("child").error("from the child")
            time.sleep(600)
        return pid

    @action
    def busy(self, seconds: float) -> int:
        end, n = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            n += 1
        return n

    @action
    def hang(self) -> None:
        self.report_progress(0.1, "hanging")
        time.sleep(600)

    @action
    def stubborn(self):
        for i in range(10**9):
            yield "x" * 1000

    def cleanup(self):
        print("cleaning", flush=True)

if __name__ == "__main__":
    serve(Tool)
"""


linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def dies(pid: int) -> bool:
    end = time.monotonic() + 20
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_without_a_host_it_says_what_it_is(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(TOOL)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 2 and "cjm-ctl" in done.stderr


def test_the_module_form_serves_the_same(start: Any, tmp_path: Path) -> None:
    (tmp_path / "mytool.py").write_text(TOOL)
    launcher = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "sys.argv[1:] = ['mytool:Tool']\n"
        "runpy.run_module('cjm_worker', run_name='__main__')\n"
    )
    worker = start(launcher).ready()
    assert worker.execute("echo", text="hi") == (200, "hi")


def test_a_class_that_does_not_import_is_told_to_the_host(start: Any) -> None:
    worker = start("import cjm_worker.process as s\ns.serve_spec('no_such_module:Tool')")
    frame = worker.frame(lambda frame: frame["type"] == "log")
    assert frame["level"] == "critical" and "no_such_module" in frame["message"]
    assert worker.end() == 1
    assert worker.frames[-1] == {"type": "bye", "code": 1}
    assert "ModuleNotFoundError" in worker.output()


def test_a_class_without_a_name_is_refused(start: Any) -> None:
    worker = start("from cjm_worker import *\nclass X(Capability): ...\nserve(X)")
    assert worker.end() == 1
    assert "needs a name and a version" in worker.output()


@linux
def test_no_child_inherits_the_control_stream_or_its_number(start: Any) -> None:
    worker = start(TOOL).ready()
    # Standard streams and the listing's own descriptor.
    assert worker.execute("descriptors") == (200, ["0", "1", "2", "3"])
    assert "CJM_CONTROL_FD" not in worker.execute("environment")[1]


@linux
def test_a_forked_child_does_not_speak_for_the_worker(start: Any) -> None:
    worker = start(TOOL).ready()
    status, child = worker.execute("fork")
    assert status == 200
    assert worker.execute("echo", text="on") == (200, "on")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    assert not any(frame.get("message") == "from the child" for frame in worker.frames)
    assert dies(child)


@linux
def test_everything_ends_with_the_host(start: Any) -> None:
    worker = start(TOOL).ready()
    _, child = worker.execute("fork")
    worker.control.shutdown(2)
    worker.process.wait(20)
    assert dies(child)


def test_a_host_that_dies_during_a_long_import_takes_the_worker_along(start: Any) -> None:
    worker = start(
        "import cjm_worker, time\n"
        + TOOL.replace(
            "serve(Tool)", "import cjm_worker.process as s\n    s._run(lambda: time.sleep(600))"
        )
    )
    worker.control.shutdown(2)
    assert worker.process.wait(20) != 0


def test_sigterm_ends_it_while_a_call_hangs(start: Any) -> None:
    worker = start(TOOL).ready()
    with worker.connect() as connection:
        worker.send(connection, "/execute", {"kwargs": {"action": "hang"}})
        worker.frame(lambda frame: frame.get("message") == "hanging")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.end() == 0
    assert "cleaning" in worker.output()
    assert worker.frames[-1] == {"type": "bye", "code": 0}


def test_a_call_that_keeps_the_processor_busy_keeps_no_other_from_being_answered(
    start: Any,
) -> None:
    worker = start(TOOL).ready()
    with worker.connect() as connection:
        worker.send(connection, "/execute", {"kwargs": {"action": "busy", "seconds": 1}})
        assert worker.execute("echo", text="meanwhile") == (200, "meanwhile")
        assert connection.recv(1024).startswith(b"HTTP/1.1 200")


def test_a_stream_without_a_reader_ends_with_it(start: Any) -> None:
    worker = start(TOOL).ready()
    with worker.connect() as connection:
        worker.send(connection, "/execute_stream", {"kwargs": {"action": "stubborn"}})
        assert connection.recv(1024).startswith(b"HTTP/1.1 200")
    while worker.call("/cancel", {"job_id": None})[1]["calls"]:
        pass


def request(lines: str, body: bytes = b"") -> bytes:
    head = f"{lines}\r\nAuthorization: Bearer {TOKEN}\r\nHost: w\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"NONSENSE\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nbad name : x\r\n\r\n", 400),
        (b"GET /" + b"x" * 100_000, 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 401),
        (request("GET /health HTTP/1.0"), 200),
        (request("GET /health?x=%00&y HTTP/1.1\r\nConnection: close"), 200),
        (request("POST /execute HTTP/1.1\r\nContent-Length: -1"), 400),
        (request("POST /execute HTTP/1.1\r\nContent-Length: 99999999999"), 413),
        (request("POST /execute HTTP/1.1\r\nTransfer-Encoding: gzip"), 400),
        (request("POST /execute HTTP/1.1\r\nTransfer-Encoding: chunked", b"zz\r\n"), 400),
        (
            request("POST /execute HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1"),
            400,
        ),
        (
            request(
                "POST /execute HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close",
                b'5;x=y\r\n{"kwa\r\nA\r\nrgs": {}} \r\n0\r\nTrailer: x\r\n\r\n',
            ),
            200,
        ),
        (
            request(
                "POST /execute HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n"
                "Connection: close",
                b"{}",
            ),
            100,
        ),
    ],
    ids=range(14),
)
def test_a_request_is_read_strictly(start: Any, data: bytes, status: int) -> None:
    worker = start(TOOL).ready()
    assert int(worker.raw(data).split()[1]) == status
    assert worker.execute("echo", text="on") == (200, "on")


def test_requests_sent_at_once_are_answered_in_turn(start: Any) -> None:
    worker = start(TOOL).ready()
    body = json.dumps({"kwargs": {"text": "x"}}).encode()
    post = request(f"POST /execute HTTP/1.1\r\nContent-Length: {len(body)}", body)
    answer = worker.raw(post + post + request("GET /health HTTP/1.1\r\nConnection: close"))
    assert answer.count(b"HTTP/1.1 200 OK") == 3


def test_a_request_that_ends_early_leaves_no_call_behind(start: Any) -> None:
    worker = start(TOOL).ready()
    with worker.connect() as connection:
        connection.sendall(request("POST /execute HTTP/1.1\r\nContent-Length: 100", b"{"))
    assert worker.execute("echo", text="on") == (200, "on")


def test_warnings_of_refused_requests_are_few(start: Any) -> None:
    worker = start(TOOL).ready()
    for _ in range(20):
        assert worker.call("/execute", {}, token="wrong")[0] == 401
    worker.frame(lambda frame: frame["type"] == "warning")
    assert sum(frame["type"] == "warning" for frame in worker.frames) <= 3


@pytest.mark.parametrize("deadline", ["1e999", "-1", "1e300"])
def test_an_odd_deadline_ends_no_more_than_its_call(start: Any, deadline: str) -> None:
    worker = start(TOOL).ready()
    body = f'{{"kwargs": {{"text": "x"}}, "envelope": {{"deadline_ms": {deadline}}}}}'.encode()
    head = f"POST /execute HTTP/1.1\r\nConnection: close\r\nContent-Length: {len(body)}"
    worker.raw(request(head, body))
    assert worker.execute("echo", text="on") == (200, "on")


SLOW_CALLBACK = TOOL.replace(
    "    @action\n    def hang",
    """    @action
    def slow_to_cancel(self) -> None:
        self.on_cancel(lambda: time.sleep(600))
        self.report_progress(0.1, "running")
        time.sleep(600)

    @action
    def hang""",
)


def test_a_slow_cancel_callback_keeps_the_worker_from_nothing(start: Any) -> None:
    worker = start(SLOW_CALLBACK).ready()
    with worker.connect() as connection:
        worker.send(connection, "/execute", {"kwargs": {"action": "slow_to_cancel"}})
        worker.frame(lambda frame: frame.get("message") == "running")
    assert worker.execute("echo", text="on") == (200, "on")
    worker.control.shutdown(2)
    assert worker.process.wait(20) != 0


def test_lines_are_printed_when_they_are_written(start: Any) -> None:
    worker = start(TOOL).ready()
    assert worker.process.stdout.readline() == b"printed on import\n"


HANGING_EXIT = TOOL.replace("import logging", "import atexit, logging").replace(
    "if __name__", "atexit.register(lambda: time.sleep(600))\nif __name__"
)


def test_an_exit_handler_that_hangs_does_not_hold_the_worker_back(start: Any) -> None:
    worker = start(HANGING_EXIT).ready()
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0


@linux
def test_shared_memory_that_a_tool_left_is_unlinked(start: Any) -> None:
    script = TOOL.replace(
        "    @action\n    def hang",
        """    @action
    def share(self) -> str:
        from multiprocessing import shared_memory
        self.shared = shared_memory.SharedMemory(create=True, size=16)
        return self.shared.name

    @action
    def hang""",
    )
    worker = start(script).ready()
    status, name = worker.execute("share")
    assert status == 200
    path = Path("/dev/shm") / name.lstrip("/")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.end() == 0
    end = time.monotonic() + 20
    while path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not path.exists()
