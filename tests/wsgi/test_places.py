"""The places of sockets in servers, and the states in which they must not be taken."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterator
from itertools import count as count_from
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.clients import Client, get, masked, upgrade
from tests.support.log import ServerLog
from wsframe import Opcode
from wsframe.wsgi import EventStream, Live, WebSocket, servers

from . import running
from .arrived import UPGRADE, Arrived

WARNING = 30


def greet(ws: WebSocket) -> Generator[None, str, None]:
    ws.send("hello")
    while True:
        ws.send((yield))


def count(stream: EventStream) -> Iterator[int]:
    yield from range(3)


class UWSGI(ModuleType):
    """The module that uWSGI puts into its processes."""

    def __init__(self, arrived: Arrived) -> None:
        super().__init__("uwsgi")
        self.opt: dict[str, bytes] = {}
        self._arrived = arrived

    def connection_fd(self) -> int:
        return self._arrived.sock.fileno()


@pytest.fixture
def in_uwsgi(monkeypatch: pytest.MonkeyPatch) -> Iterator[Arrived]:
    """A request that uWSGI has received."""
    with Arrived(**UPGRADE, **{"uwsgi.version": b"2.0.31"}) as arrived:
        del arrived.environ["werkzeug.socket"]
        arrived.environ["wsgi.input"] = object()
        monkeypatch.setitem(sys.modules, "uwsgi", UWSGI(arrived))
        yield arrived


def test_the_socket_of_uwsgi_is_taken(live: Live, in_uwsgi: Arrived) -> None:
    in_uwsgi.serve(live.websocket(greet))
    in_uwsgi.receive_until(b"hello")


def test_uwsgi_may_report_the_version_of_a_proxys_client(live: Live, in_uwsgi: Arrived) -> None:
    in_uwsgi.environ["SERVER_PROTOCOL"] = "HTTP/2.0"
    in_uwsgi.serve(live.events(count))
    assert in_uwsgi.receive_until().startswith(b"HTTP/1.1 200 ")


def test_tls_by_uwsgi_is_refused(live: Live, in_uwsgi: Arrived, log: ServerLog) -> None:
    in_uwsgi.environ["wsgi.url_scheme"] = "https"
    sys.modules["uwsgi"].opt["https-socket"] = b":443"
    in_uwsgi.serve(live.websocket(greet))
    assert in_uwsgi.status == 501
    log.expect("TLS by uWSGI cannot be taken over", WARNING)


class Input:
    """The input of a request in uWSGI.

    Args:
        fd: the descriptor of the connection.
    """

    def __init__(self, fd: int) -> None:
        self.fileno = lambda: fd


def test_the_connection_of_a_router_is_taken(live: Live, in_uwsgi: Arrived) -> None:
    addresses = []

    def note(ws: WebSocket) -> None:
        addresses.append((ws.request.client, ws.request.address))
        ws.send("noted")

    in_uwsgi.environ.update(
        {
            "REMOTE_ADDR": "192.0.2.1",
            "REMOTE_PORT": "1234",
            "wsgi.input": Input(in_uwsgi.sock.fileno()),
        }
    )
    in_uwsgi.serve(live.websocket(note))
    in_uwsgi.receive_until(b"noted")
    assert addresses == [("192.0.2.1", ("192.0.2.1", 1234))]


@pytest.mark.parametrize("source", [object(), Input(0)])
def test_the_connection_of_another_request_is_not_taken(
    live: Live, in_uwsgi: Arrived, source: object, log: ServerLog
) -> None:
    in_uwsgi.environ.update({"REMOTE_PORT": "1", "wsgi.input": source})
    in_uwsgi.serve(live.websocket(greet))
    assert in_uwsgi.status == 503
    log.expect("but the request is from 127.0.0.1 port 1", WARNING)
    in_uwsgi.client.setblocking(False)
    with pytest.raises(BlockingIOError):
        in_uwsgi.client.recv(1)


def test_uwsgi_has_no_connection_in_another_thread(
    live: Live, in_uwsgi: Arrived, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connection_fd() -> int:
        raise SystemError("you can call uwsgi api function only from the main callable")

    monkeypatch.setattr(sys.modules["uwsgi"], "connection_fd", connection_fd)
    in_uwsgi.serve(live.websocket(greet))
    assert in_uwsgi.status == 501
    log.expect("uWSGI has no request in this thread", WARNING)


def test_uwsgi_replaces_the_status_although_it_leaves_the_error_set(
    live: Live, in_uwsgi: Arrived, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_response = in_uwsgi.start_response

    def replace(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        start_response(status, headers, exc_info)
        if exc_info is not None:
            raise SystemError("returned a result with an exception set")

    monkeypatch.setattr(in_uwsgi, "start_response", replace)
    in_uwsgi.environ["REMOTE_PORT"] = "1"
    assert in_uwsgi.serve(live.websocket(greet)) == b"the connection cannot be taken over\n"
    assert in_uwsgi.status == 503
    log.discard()


def test_a_module_that_is_called_uwsgi_is_ignored(live: Live, in_uwsgi: Arrived) -> None:
    del in_uwsgi.environ["uwsgi.version"]
    in_uwsgi.serve(live.websocket(greet))
    assert in_uwsgi.status == 501


def test_the_socket_of_meinheld_is_taken(live: Live) -> None:
    with Arrived(**UPGRADE) as arrived:
        sock = arrived.environ.pop("werkzeug.socket")
        arrived.environ["meinheld.client"] = SimpleNamespace(get_fd=sock.fileno)
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")


def test_the_socket_of_gunicorn_is_taken_although_middleware_hides_its_reader(live: Live) -> None:
    with Arrived(**UPGRADE) as arrived:
        arrived.environ["gunicorn.socket"] = arrived.environ.pop("werkzeug.socket")
        arrived.serve(live.websocket(greet))
        arrived.receive_until(b"hello")


# waitress ----------------------------------------------------------------------------------------


class Site:
    """An application for waitress.

    Attributes:
        may_answer: set when a page may be answered.
        body: the body of the page.
    """

    def __init__(self, live: Live) -> None:
        self.live = live
        self.body = b"page"

    def __call__(self, environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/greet":
            return self.live.websocket(greet)(environ, start_response)
        if environ["PATH_INFO"] == "/count":
            return self.live.events(count)(environ, start_response)
        start_response("200 OK", [("Content-Length", str(len(self.body)))])
        return [self.body]


@pytest.fixture
def site(live: Live) -> Site:
    return Site(live)


def test_waitress_must_not_read_ahead_while_the_application_runs(
    site: Site, log: ServerLog
) -> None:
    with running.waitress_server(site, channel_request_lookahead=1) as port:
        client = Client(port)
        client.send(upgrade("/greet"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        log.expect("set channel_request_lookahead to 0", WARNING)
        client.close()


@pytest.mark.parametrize("behind", [get("/page"), b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n"])
def test_data_that_waitress_has_parsed_as_a_request_is_not_lost(
    site: Site, behind: bytes, log: ServerLog
) -> None:
    with running.waitress_server(site) as port:
        client = Client(port)
        client.send(upgrade("/greet") + behind)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        log.expect("waitress parsed this data as another request", WARNING)
        client.close()


def test_requests_that_waitress_has_parsed_behind_a_stream_are_discarded(site: Site) -> None:
    with running.waitress_server(site) as port:
        client = Client(port)
        client.send(get("/count") + get("/page") + get("/page")[:20])
        data = client.read_to_end()
        assert data.count(b"HTTP/1.1") == 1
        assert b"data: 2\n\n" in data
        client.close()


def test_frames_behind_an_upgrade_are_taken_from_waitress(site: Site) -> None:
    with running.waitress_server(site) as port:
        client = Client(port)
        client.send(upgrade("/greet") + masked(Opcode.TEXT, "x" * 3000))
        client.read_until(b"hello")
        client.read_until(b"x" * 3000)
        client.close()


def test_waitress_sends_the_previous_response_first(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = SimpleNamespace(monotonic=lambda: 0.0, sleep=time.sleep)
    monkeypatch.setattr(servers, "time", stopped)
    site.body = b"x" * 500_000
    with running.waitress_server(site) as port:
        client = Client(port, receive_buffer=8192)
        client.send(get("/page") + upgrade("/greet"))
        client.read_until(b"\r\n\r\n")
        client.read_until(site.body)
        client.read_until(b"hello")
        client.close()


def test_a_previous_response_that_is_not_received_prevents_the_upgrade(
    site: Site, log: ServerLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = SimpleNamespace(monotonic=count_from(0).__next__, sleep=time.sleep)
    monkeypatch.setattr(servers, "time", fast)
    site.body = b"x" * 20_000_000
    with running.waitress_server(site, outbuf_overflow=100_000_000) as port:
        client = Client(port, receive_buffer=8192)
        client.send(get("/page") + upgrade("/greet"))
        log.expect("waitress has not sent the previous response to this client in time", WARNING)
        client.close()
