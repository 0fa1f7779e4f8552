"""The health of a server: 200 while it serves, and 503 from the beginning of its stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.server.apps import ask
from tests.support.clients import Clients, get
from tests.support.handlers import generator_echo, websocket_app
from tests.support.log import ServerLog
from tests.support.redis_server import RedisServer
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App
from wsframe.server.timing import Timing
from wsframe.server.topics.redis.connection import RedisConnection
from wsframe.server.topics.redis.probe import Probe


def test_a_server_that_begins_to_stop_serves_clients_and_is_not_healthy(
    serve: Serve, clients: Clients
) -> None:
    app = websocket_app(generator_echo)
    app.health()
    server = serve(app)
    answer = ask(server, get("/health"))
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.headers["cache-control"] == "no-store"
    assert ask(server, get("/health", method="HEAD")).body == b""
    stopping = threading.Thread(target=server.stop, kwargs={"delay": 600})
    stopping.start()
    wait_until(lambda: server.stopping, "the stop has begun")
    answer = ask(server, get("/health"))
    assert (answer.status, answer.body) == (503, b"stopping\n")
    assert answer.headers["retry-after"] == "5"
    client = clients.websocket(server, "/echo")
    client.send_messages("x")
    assert client.next_event() == "x"
    assert server.running
    server.stop()  # at once
    stopping.join(TIMEOUT)
    assert not server.running


def test_a_server_without_redis_is_ready(serve: Serve, clients: Clients) -> None:
    app = App()
    app.health("/ready", redis=True)
    assert ask(serve(app), get("/ready")).status == 200


@pytest.mark.slow
def test_a_server_is_ready_while_redis_answers(
    serve: Serve, clients: Clients, log: ServerLog, tmp_path: Path
) -> None:
    with RedisServer(tmp_path) as redis:
        app = App(redis=redis.url, timing=Timing(redis_probe_lifetime=0.0))
        app.health()
        app.health("/ready", redis=True)
        server = serve(app)
        assert ask(server, get("/ready")).status == 200
        with redis.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-ping")
        assert ask(server, get("/ready")).status == 200
    answer = ask(server, get("/ready"))
    assert (answer.status, answer.body) == (503, b"Redis does not answer\n")
    assert ask(server, get("/health")).status == 200


class Answers(list[bool]):
    """The answers to requests, in any thread."""

    def expect(self, *expected: bool) -> None:
        """Wait for these answers."""
        wait_until(lambda: len(self) >= len(expected), "the probe answers")
        assert self == list(expected)
        self.clear()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Probe]:
    """Return a function that returns a probe of a Redis that does not exist."""
    pytest.importorskip("redis")

    def make(client: object = None, **timing: float) -> Probe:
        connection = RedisConnection("unix:///none", "wsframe:", Timing(**timing))  # type: ignore[arg-type]
        if client is not None:
            monkeypatch.setattr(connection, "client", lambda name: client)
        return Probe(connection)

    return make


class SlowClient:
    """A client of a Redis that answers when a test permits it."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.pings = 0

    def ping(self) -> None:
        assert self.go.wait(TIMEOUT)
        self.pings += 1

    def close(self) -> None: ...


class BrokenClient(SlowClient):
    """A client whose check raises an error of another kind."""

    def ping(self) -> None:
        raise UnicodeError("label too long")


def test_a_check_that_raises_any_error_has_a_negative_result(make: Callable[..., Probe]) -> None:
    answers, probe = Answers(), make(BrokenClient(), redis_probe_lifetime=0.0)
    probe.request(answers.append)
    answers.expect(False)


def test_requests_share_a_check(make: Callable[..., Probe]) -> None:
    answers, client = Answers(), SlowClient()
    probe = make(client, redis_probe_lifetime=600.0)
    for _ in range(3):
        probe.request(answers.append)
    client.go.set()
    answers.expect(True, True, True)
    probe.request(answers.append)  # the result is valid for a while
    answers.expect(True)
    assert client.pings == 1


def test_a_probe_without_a_thread_has_a_negative_result(
    make: Callable[..., Probe], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = Answers()
    probe = make(redis_probe_lifetime=0.0)
    with monkeypatch.context() as patch:

        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        probe.request(answers.append)
    answers.expect(False)
    probe.request(answers.append)
    answers.expect(False)


def test_the_path_must_be_free() -> None:
    app = App()
    app.health()
    with pytest.raises(ValueError, match="'/health' already has a route"):
        app.health()
