"""Clients that vanish: the server receives no FIN, no RST and no acknowledgement."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.support.certificates import Certificates
from tests.support.clients import can_vanish
from tests.support.handlers import MessageGenerator, websocket_app
from tests.support.inspection import peers_of, socket_of
from wsframe import ConnectionClosed
from wsframe.progress import unacknowledged
from wsframe.server import App, WebSocket
from wsframe.testing import Client, ManualClock, ServeApp, silence, wait_until


@pytest.fixture
def ends() -> list[int]:
    """The close codes that the handlers of the app have received."""
    return []


@pytest.fixture
def app(ends: list[int]) -> App:
    """An app whose handler echoes messages, until its connection ends."""

    def handler(ws: WebSocket) -> MessageGenerator:
        try:
            while True:
                message = yield
                ws.send(message)
        except ConnectionClosed as end:
            ends.append(end.code)

    return websocket_app(handler)


@can_vanish
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
def test_only_the_ping_timeout_ends_the_connection(
    app: App,
    ends: list[int],
    serve_app: ServeApp,
    manual_clock: ManualClock,
    certificates: Certificates,
    secured: bool,
) -> None:
    context = certificates.server if secured else None
    server = serve_app(
        app, clock=manual_clock, ssl_context=context, ping_interval=20, ping_timeout=20
    )
    client = server.websocket("/echo", tls=certificates.client if secured else None)
    client.vanish()
    server.pass_time(19)
    assert server.connections == 1
    server.pass_time(41)
    assert server.connections == 0
    assert server.server.stats().ping_timeouts == 1
    wait_until(lambda: ends == [1011], "the handler has ended")
    with client.timeout(0.05), pytest.raises(TimeoutError):
        client.next_event()  # neither the ping nor the close frame has arrived


@can_vanish
def test_a_client_that_reappears_receives_what_was_sent(app: App, serve_app: ServeApp) -> None:
    server = serve_app(app)
    client = server.websocket("/echo")
    client.vanish()
    (peer,) = peers_of(server.server)
    peer.send(b"\x82\x02hi")
    wait_until(lambda: unacknowledged(socket_of(peer)) == 4, "it is sent")
    client.reappear()
    assert client.expect(1) == [b"hi"]
    wait_until(lambda: unacknowledged(socket_of(peer)) == 0, "it is acknowledged")
    client.send_messages("hello")
    assert client.expect(1) == ["hello"]
    assert client.leave().code == 1000


@can_vanish
def test_the_close_of_a_vanished_client_resets_the_connection(
    app: App, ends: list[int], serve_app: ServeApp
) -> None:
    server = serve_app(app)
    client = server.websocket("/echo")
    client.vanish()
    client.close()
    wait_until(lambda: ends == [1006], "the server has received a reset")


@pytest.mark.skipif(sys.platform == "win32", reason="this system has no unix sockets")
def test_a_client_of_a_unix_socket_cannot_vanish(
    app: App, serve_app: ServeApp, tmp_path: Path
) -> None:
    path = tmp_path / "socket"
    server = serve_app(app, unix=str(path))
    client = server.connect(unix=str(path))
    with pytest.raises(NotImplementedError, match="only on Linux, and with a TCP connection"):
        client.vanish()


def test_a_client_can_vanish_only_on_linux(
    app: App, serve_app: ServeApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve_app(app)
    monkeypatch.setattr(silence, "sys", SimpleNamespace(platform="win32"))
    with Client(server.port) as client, pytest.raises(NotImplementedError, match="only on Linux"):
        client.vanish()
