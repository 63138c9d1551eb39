"""Frames on the control stream: whole, bounded and in order."""

import json
import socket
import threading
from typing import Any, Dict, Iterator, List

import pytest

from cjm_worker.control import FRAME_MAX_BYTES, ControlStream, encode_frame
from cjm_worker.errors import CapabilityFatalError


class Host:
    """The other end of a control stream."""

    def __init__(self) -> None:
        self.socket, worker = socket.socketpair()
        self.socket.settimeout(20)
        self.stream = ControlStream(worker)
        self.lines = self.socket.makefile("rb")

    def read(self, count: int) -> List[Dict[str, Any]]:
        return [json.loads(self.lines.readline()) for _ in range(count)]

    def read_until(self, kind: str) -> List[Dict[str, Any]]:
        frames = self.read(1)
        while frames[-1]["type"] != kind:
            frames += self.read(1)
        return frames


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.lines.close()
    host.socket.close()


def log(message: str) -> Dict[str, Any]:
    return {"type": "log", "ts": "", "level": "info", "logger": "l", "message": message}


def test_frames_arrive_in_order(host: Host) -> None:
    for i in range(100):
        host.stream.send(log(str(i)))
    host.stream.send({"type": "bye", "code": 0})
    assert [frame.get("message") for frame in host.read(101)][:100] == [str(i) for i in range(100)]


@pytest.mark.parametrize("letter", ["x", "é", "🦜", "\x00", "\ud800", '"'])
def test_a_long_log_line_is_cut_to_a_frame(letter: str) -> None:
    line = encode_frame({**log(letter * 100_000), "exc": letter * 100_000, "job_id": "j"})
    assert len(line) <= FRAME_MAX_BYTES
    frame = json.loads(line)
    assert "characters cut" in frame["message"] and frame["job_id"] == "j"


def test_any_other_long_frame_is_refused() -> None:
    frame = {"type": "account", "job_id": "j", "event_type": "x", "payload": {"v": "x" * 70_000}}
    with pytest.raises(CapabilityFatalError, match="hashes, not content"):
        encode_frame(frame)


def test_logs_beyond_the_buffer_are_counted_and_accounts_are_not_lost(host: Host) -> None:
    for _ in range(3000):
        host.stream.send(log("x" * 1000))
    host.stream.send({"type": "account", "job_id": "j", "event_type": "e", "payload": {}})
    host.stream.send({"type": "bye", "code": 0})
    frames: List[Dict[str, Any]] = []
    while not {"dropped", "bye"} <= {frame["type"] for frame in frames}:
        frames += host.read(1)
    kinds = [frame["type"] for frame in frames]
    dropped = sum(frame["n"] for frame in frames if frame["type"] == "dropped")
    assert kinds.count("account") == 1
    assert kinds.count("log") + dropped == 3000 and dropped > 1000


def test_progress_is_thinned_out_and_its_last_value_arrives(host: Host) -> None:
    for i in range(1000):
        host.stream.send({"type": "progress", "job_id": "j", "progress": i / 999, "message": ""})
    frames = host.read(1)
    while frames[-1]["progress"] < 1:
        frames += host.read(1)
    assert len(frames) < 100


def test_progress_of_one_job_does_not_hold_back_another(host: Host) -> None:
    for job in ("a", "b"):
        host.stream.send({"type": "progress", "job_id": job, "progress": 0, "message": ""})
    assert [frame["job_id"] for frame in host.read(2)] == ["a", "b"]


def test_what_a_job_reports_last_is_written_before_its_answer(host: Host) -> None:
    for i in range(3):
        host.stream.send({"type": "progress", "job_id": "j", "progress": i / 2, "message": ""})
    assert host.stream.flush_job("j")
    host.socket.setblocking(False)
    frames = [json.loads(line) for line in host.socket.recv(65536).splitlines()]
    assert frames[-1]["progress"] == 1


def test_a_host_that_does_not_read_blocks_no_log_call(host: Host) -> None:
    done = threading.Event()

    def chatter() -> None:
        for _ in range(20_000):
            host.stream.send(log("x" * 500))
        done.set()

    threading.Thread(target=chatter, daemon=True).start()
    assert done.wait(20)
    host.stream.send({"type": "bye", "code": 0})
    assert any(frame["type"] == "dropped" for frame in host.read_until("bye") + host.read(1))


def test_a_host_that_is_gone_is_no_error(host: Host) -> None:
    host.lines.close()
    host.socket.close()
    for _ in range(100):
        host.stream.send(log("x" * 1000))
    assert host.stream.flush(5)
