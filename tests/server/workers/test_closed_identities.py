"""Closing the connections of a user in several workers."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import cast

import pytest

from tests.support.clients import StreamClient, WebSocketClient
from tests.support.closings import DROPPING, INVALID_CLOSINGS
from tests.support.inspection import topics_of
from tests.support.log import ServerLog
from tests.support.processes import ServerProcess
from tests.support.redis_server import RedisServer
from tests.support.waiting import TIMEOUT
from wsframe import Close
from wsframe.server import App, Server
from wsframe.server.reports.stats import Stats
from wsframe.server.workers.channel import channel_pair
from wsframe.server.workers.worker import SupervisorLink

pytestmark = pytest.mark.skipif(
    sys.platform != "linux",
    reason="only Linux balances connections among listeners of a port",
)

PROGRAM = """
import os, sys
from wsframe.server import App

app = App(redis=sys.argv[2] if len(sys.argv) > 2 else None)

def user(request):
    return request.query["user"][0]

@app.websocket("/", authorize=user)
def talk(ws):
    ws.send(str(os.getpid()))
    while True:
        name, _, times = (yield).partition(" ")
        for _ in range(int(times or 1)):
            app.close_identity(name, code=4001, reason="banned")
        ws.send("closed")

@app.sse("/stream", authorize=user)
def stream(stream):
    stream.send(str(os.getpid()))

app.run("127.0.0.1", 0, workers=int(sys.argv[1]), drain=1, worker_timeout=0)
"""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM, encoding="utf-8")
    return tmp_path


def sockets(process: ServerProcess, name: str, stack: ExitStack) -> dict[int, WebSocketClient]:
    """Connect until each of two workers has a WebSocket of this user."""
    found: dict[int, WebSocketClient] = {}
    while len(found) < 2:
        client = WebSocketClient(process.port, f"/?user={name}")
        stack.callback(client.close)
        found.setdefault(int(str(client.next_event())), client)
    return found


def streams(process: ServerProcess, name: str, stack: ExitStack) -> list[StreamClient]:
    """Connect until each of two workers has an event stream of this user."""
    found: dict[str, StreamClient] = {}
    while len(found) < 2:
        client = StreamClient(process.port, f"/stream?user={name}")
        stack.callback(client.close)
        found.setdefault(client.next_event().data, client)
    return list(found.values())


@pytest.mark.slow
@pytest.mark.parametrize("over_redis", [False, True])
def test_the_connections_in_all_workers_are_closed(
    directory: Path, stack: ExitStack, request: pytest.FixtureRequest, over_redis: bool
) -> None:
    more: list[str] = []
    if over_redis:
        redis_server: RedisServer = request.getfixturevalue("redis_server")
        more.append(redis_server.url)
    process = stack.enter_context(ServerProcess("program.py", "2", *more, directory=directory))
    ann, bob = (sockets(process, name, stack) for name in ("ann", "bob"))
    listeners = streams(process, "ann", stack)
    first, second = bob.values()
    first.send_messages("ann")
    assert first.next_event() == "closed"
    for client in ann.values():
        assert client.expect_close() == Close(4001, "banned")
    for stream in listeners:
        stream.expect_end()
        assert stream.last_event_id == ":end"
    second.send_messages("ann")  # the other direction; bob is still connected
    assert second.next_event() == "closed"
    process.signal(signal.SIGTERM)
    assert process.wait()[0] == 0


@pytest.mark.slow
def test_closings_for_a_worker_that_does_not_read_are_limited(
    directory: Path, stack: ExitStack
) -> None:
    process = stack.enter_context(ServerProcess("program.py", "2", directory=directory))
    bob = sockets(process, "bob", stack)
    stopped, running = sorted(bob)
    os.kill(stopped, signal.SIGSTOP)
    try:
        bob[running].send_messages(f"{'x' * 500} 5000")
        assert bob[running].next_event() == "closed"
        dropping = f"dropping the closing of an identity, because worker {stopped} "
        process.expect(re.compile(dropping))
    finally:
        os.kill(stopped, signal.SIGCONT)
    bob[stopped].send_messages("ann")
    assert bob[stopped].next_event() == "closed"
    process.signal(signal.SIGTERM)
    assert process.wait()[0] == 0


@pytest.mark.parametrize("message", [None, 5, ["x", "ann", 1008, ""], *INVALID_CLOSINGS])
def test_an_invalid_closing_by_the_supervisor_is_dropped(log: ServerLog, message: object) -> None:
    closings = topics_of(App()).closings
    closed: SimpleQueue[tuple[str, int, str]] = SimpleQueue()
    closings.add(lambda *closing: closed.put(closing))
    ours, theirs = channel_pair()
    ended = threading.Event()
    link = SupervisorLink(theirs, ended.set)
    link.attach(cast("Server", None), Stats, closings)
    link.begin()
    ours.send("close", message)
    ours.send("close", '["x", "ann", 4001, "banned"]')
    assert closed.get(timeout=TIMEOUT) == ("ann", 4001, "banned")
    log.expect(DROPPING)
    ours.close()
    assert ended.wait(TIMEOUT)
    theirs.close()
