"""The server of a process: its start, its failures, and its end."""

from __future__ import annotations

import atexit
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from types import ModuleType

import pytest

from tests.support.log import ServerLog
from tests.support.threads import NewThreads
from wsframe.wsgi import Live, WebSocket

from .arrived import UPGRADE, Arrived
from .conftest import MakeLive

WARNING = 30


def greet(ws: WebSocket) -> Generator[None, str, None]:
    ws.send("hello")
    yield


def test_the_server_starts_with_the_first_connection(live: Live) -> None:
    threads = NewThreads()
    live.topic("news").publish("one")
    with Arrived(HTTP_HOST="a b") as arrived:
        arrived.serve(live.websocket(greet))
    assert len(threads) <= 1  # one for the log
    assert live.stats().loops == 0
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
    assert live.stats().loops == 1


def test_a_server_that_cannot_start_is_an_answer(
    live: Live, monkeypatch: pytest.MonkeyPatch, log: ServerLog
) -> None:
    def fail(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with Arrived(**UPGRADE) as arrived:
        with monkeypatch.context() as context:
            context.setattr(threading.Thread, "start", fail)
            body = arrived.serve(live.websocket(greet))
        assert (arrived.status, body) == (
            503,
            b"WebSockets and event streams are not available\n",
        )
        assert live.stats().refused_for == {"failed": 1}
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
    assert log.records  # this starts the thread of the log
    log.expect("cannot serve WebSockets and event streams: the system cannot start a thread")


def test_a_stop_before_the_first_connection_starts_nothing(live: Live) -> None:
    live.stop()
    live.stop()
    assert live.stats().loops == 0
    live.close()


def test_a_live_that_was_stopped_opens_again(live: Live) -> None:
    live.topic("news").publish("one")
    for _ in range(2):
        with Arrived(**UPGRADE) as arrived:
            arrived.serve(live.websocket(greet))
            arrived.receive_until(b"hello")
            with pytest.raises(RuntimeError, match=r"cannot reopen this Live while it serves"):
                live.reopen()
            live.stop(0.0)
        with Arrived(**UPGRADE) as arrived:
            assert b"shutting down" in arrived.serve(live.websocket(greet))
            assert arrived.status == 503
        live.reopen()
        assert live.stats().accepted == 0
    assert live.topic("news").stats().history == 1


def test_close_requires_a_stop(live: Live) -> None:
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
        with pytest.raises(RuntimeError, match="stop its server first"):
            live.close()


def test_the_exit_of_the_process_stops_the_server(
    make_live: MakeLive, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[Callable[[], object]] = []
    monkeypatch.setattr(atexit, "register", registered.append)
    live = make_live(drain=5.0)
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
        (function,) = registered
        exiting = threading.Thread(target=function)
        exiting.start()
        assert arrived.client.recv(4)[2:] == (1001).to_bytes(2, "big")
        arrived.client.close()
        exiting.join()
    function()


@pytest.mark.parametrize("previous", [True, False])
def test_the_exit_function_of_uwsgi_is_used(
    make_live: MakeLive, monkeypatch: pytest.MonkeyPatch, previous: bool
) -> None:
    called = []
    uwsgi = ModuleType("uwsgi")
    vars(uwsgi)["connection_fd"] = lambda: -1
    if previous:
        vars(uwsgi)["atexit"] = lambda: called.append("previous")
    monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
    live = make_live()
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")
        vars(uwsgi)["atexit"]()
        assert not live.stats().loops
    assert called == (["previous"] if previous else [])


FORKS = """
import os, sys
from tests.wsgi.arrived import UPGRADE, Arrived
from wsframe.wsgi import Live

def greet(ws):
    ws.send("hello")
    yield

live = Live(loops=1, drain=0)
live.topic("news")

def serve():
    with Arrived(**UPGRADE) as arrived:
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")

before = Arrived(**UPGRADE)
before.serve(live.websocket(greet))
before.receive_until(b"hello")
if os.fork() == 0:
    sys.exit()  # without a server
child = os.fork()
if child == 0:
    assert live.stats().loops == 0
    serve()
    live.stop()
    print("child", live.stats().accepted, flush=True)
    sys.exit()
for _ in range(2):
    _, status = os.wait()
    assert status == 0, status
assert live.stats().accepted == 1
serve()
before.__exit__(None, None, None)
print("parent", live.stats().accepted)
"""


@pytest.mark.slow
def test_the_child_of_a_fork_has_a_server_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKS],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("child 0\nparent 2\n", 0), done.stderr
