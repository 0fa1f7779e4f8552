"""A request for the metrics waits for the numbers of the other workers, for a limited time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.server.reports.calls import ACCESS, handled_by
from tests.support.clients import Clients, get
from tests.support.inspection import wait_for_disconnects
from tests.support.serving import stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, Server, Settings
from wsframe.server.app import serve
from wsframe.server.reports.stats import Stats
from wsframe.server.sockets.listening import listen
from wsframe.server.timing import Timing
from wsframe.server.topics.closings import Closings
from wsframe.server.workers.channel import Channel, channel_pair
from wsframe.server.workers.worker import MetricsCallback, SupervisorLink
from wsframe.testing import ManualClock

WAIT = 5.0


class Link(SupervisorLink):
    """A link to a supervisor whose answers are controlled by the test."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel, lambda: None)
        self.callbacks: list[MetricsCallback] = []

    def attach(self, server: Server, stats: Callable[[], Stats], closings: Closings) -> None:
        """Ignore the numbers of this process."""

    def request(self, callback: MetricsCallback) -> None:
        """Keep the callback for the test."""
        self.callbacks.append(callback)

    def answer(self, text: bytes | None) -> None:
        """Wait for the request, and answer it."""
        wait_until(lambda: self.callbacks, "the metrics are requested")
        self.callbacks.pop()(text)


@pytest.fixture
def link() -> Iterator[Link]:
    ours, theirs = channel_pair()
    yield Link(theirs)
    ours.close()
    theirs.close()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def server(link: Link, clock: ManualClock) -> Iterator[Server]:
    """A worker's server, in this process."""
    app = App(timing=Timing(clock=clock, report_timeout=WAIT))
    app.metrics()
    settings = Settings(loops=1, drain=600)
    server = serve(app, partial(listen, "127.0.0.1", 0, settings), settings, link=link)
    yield server
    stop_within(server, TIMEOUT)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("text", "status"), [(b"numbers\n", 200), (None, 503)])
def test_the_answer_of_the_supervisor_is_the_answer_to_the_client(
    server: Server, link: Link, clients: Clients, method: str, text: bytes | None, status: int
) -> None:
    client = clients.connect(server)
    client.send(get("/metrics", method=method))
    link.answer(text)
    answer = client.answer()
    assert answer.status == status
    if method == "HEAD":
        assert not answer.body
    elif text:
        assert answer.body == text


def test_an_answer_after_the_time_limit_changes_nothing(
    server: Server, link: Link, clock: ManualClock, clients: Clients
) -> None:
    records: list[logging.LogRecord] = []
    with handled_by(records.append, ACCESS):
        client = clients.connect(server)
        client.send(get("/metrics") + b"more data, which is ignored")
        wait_until(lambda: link.callbacks, "the metrics are requested")
        client.send(b"and more")
        clock.pass_time(server, WAIT)
        assert b" 503 " in client.read_until(b"not available\n")
        link.answer(b"numbers\n")
        clock.let_loops_look(server)
        assert client.receive() == b""
        client.close()
        wait_for_disconnects(server)
    (record,) = records
    assert record.__dict__["status"] == 503


def test_a_stop_does_not_wait_for_the_supervisor(
    server: Server, link: Link, clients: Clients
) -> None:
    client = clients.connect(server)
    client.send(get("/metrics"))
    wait_until(lambda: link.callbacks, "the metrics are requested")
    stop_within(server, TIMEOUT)
    assert client.receive() == b""
    link.answer(b"numbers\n")  # which is dropped
