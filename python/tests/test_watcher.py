"""Both ways to notice that a caller has gone, and deadlines."""

import select
import selectors
import socket
import threading
from typing import Any, Iterator, Tuple

import pytest

from cjm_worker.calls import Call, Envelope
from cjm_worker.testing import FrameList
from cjm_worker.watcher import EpollHangUps, PeekingHangUps, Watcher

KINDS = [PeekingHangUps] + ([EpollHangUps] if hasattr(select, "epoll") else [])


class Bench:
    """A watcher at work, and connections to it."""

    def __init__(self, path: str, hang_ups: Any) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._path = path
        self._accepted: "list[socket.socket]" = []
        self._arrived = threading.Semaphore(0)
        self.watcher = Watcher(self._listener, self._accept, hang_ups)
        threading.Thread(target=self.watcher.run, daemon=True).start()

    def _accept(self, connection: socket.socket) -> None:
        self._accepted.append(connection)
        self._arrived.release()

    def connect(self) -> Tuple[socket.socket, socket.socket]:
        client = socket.socket(socket.AF_UNIX)
        client.connect(self._path)
        assert self._arrived.acquire(timeout=20)
        return client, self._accepted.pop()


@pytest.fixture(params=KINDS, ids=lambda kind: str(kind.__name__))
def bench(request: Any, tmp_path: Any) -> Iterator[Bench]:
    yield Bench(str(tmp_path / "s"), request.param)


def begin(bench: Bench, connection: socket.socket, **envelope: Any) -> Tuple[Call, threading.Event]:
    call = Call(FrameList(), Envelope(**envelope))
    cancelled = threading.Event()
    call.on_cancel(cancelled.set)
    bench.watcher.begin(connection, call)
    return call, cancelled


def test_a_caller_that_goes_cancels_its_call_and_no_other(bench: Bench) -> None:
    leaving, served = bench.connect()
    staying, other = bench.connect()
    _, cancelled = begin(bench, served)
    call, _ = begin(bench, other)
    leaving.close()
    assert cancelled.wait(20)
    assert not call.cancelled
    staying.close()


def test_a_caller_that_left_before_its_call_began_cancels_it(bench: Bench) -> None:
    client, served = bench.connect()
    client.close()
    _, cancelled = begin(bench, served)
    assert cancelled.wait(20)


def test_a_call_that_is_over_is_left_alone_and_its_connection_serves_the_next(bench: Bench) -> None:
    client, served = bench.connect()
    first, _ = begin(bench, served)
    bench.watcher.end(served)
    client.sendall(b"the next request")
    assert served.recv(100) == b"the next request"
    _, cancelled = begin(bench, served)
    client.close()
    assert cancelled.wait(20)
    assert not first.cancelled


def test_a_number_that_is_given_again_belongs_to_the_new_connection(bench: Bench) -> None:
    client, served = bench.connect()
    number = served.fileno()
    client.close()
    bench.watcher.disconnected(served)
    served.close()
    again = [bench.connect() for _ in range(3)]
    reused = [one for _, one in again if one.fileno() == number]
    calls = [begin(bench, one)[0] for one in reused]
    bystander, gone = bench.connect()
    _, cancelled = begin(bench, gone)
    bystander.close()
    assert cancelled.wait(20)
    assert not any(call.cancelled for call in calls)


def test_the_first_deadline_ends_its_call_whenever_it_came(bench: Bench) -> None:
    (_keep1, late), (_keep2, soon), (_keep3, over) = (bench.connect() for _ in range(3))
    far, _ = begin(bench, late, deadline_ms=3_600_000)
    done, _ = begin(bench, over, deadline_ms=30)
    bench.watcher.end(over)
    near, cancelled = begin(bench, soon, deadline_ms=50)
    assert cancelled.wait(20)
    assert "deadline" in str(near.cancel_error())
    assert not far.cancelled and not done.cancelled


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="epoll is Linux's")
def test_a_late_word_of_an_old_connection_cancels_no_call_of_the_next() -> None:
    selector = selectors.DefaultSelector()
    hang_ups = EpollHangUps(selector)
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    hang_ups.connected(ours)
    theirs.close()
    # The watcher has been told of the end when the serving thread forgets the connection.
    told = hang_ups._poll.poll(1)
    hang_ups.disconnected(ours)
    ours.close()
    hang_ups._poll = Replayed(hang_ups._poll, told)
    hang_ups._on_hang_up()

    again, other = socket.socketpair()
    assert again.fileno() == number
    hang_ups.connected(again)
    assert number not in hang_ups._closed
    for each in (again, other):
        each.close()


class Replayed:
    """A poll that tells once more what it told before."""

    def __init__(self, poll: Any, told: Any) -> None:
        self._poll = poll
        self._told = told

    def poll(self, timeout: float) -> Any:
        return self._told

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poll, name)
