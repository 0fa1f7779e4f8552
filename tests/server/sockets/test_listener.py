"""Listening sockets: IPv4, IPv6, and both on one port."""

from __future__ import annotations

import errno
import socket

import pytest
from websockets.sync.client import connect

from tests.support.clients import Client, get
from tests.support.serving import Serve
from tests.support.waiting import TIMEOUT
from wsframe.server import App, WebSocket


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


@pytest.fixture
def app() -> App:
    """Sends its clients their addresses."""
    app = App()
    app.page("/", "hello")

    @app.websocket("/address")
    def address(ws: WebSocket) -> None:
        ws.send(repr(ws.request.address))
        for _ in ws:  # until the client leaves
            pass

    return app


def is_served(host: str, port: int) -> bool:
    try:
        client = Client(port, host=host)
    except ConnectionRefusedError:
        return False
    client.send(get("/"))
    return client.answer().body == b"hello"


@needs_ipv6
@pytest.mark.parametrize(
    ("host", "v4", "v6"),
    [
        ("", True, True),
        ("localhost", True, True),
        ("127.0.0.1", True, False),
        ("0.0.0.0", True, False),
        ("::1", False, True),
        ("::", False, True),
    ],
)
def test_a_host_resolves_to_these_addresses(
    serve: Serve, app: App, host: str, v4: bool, v6: bool
) -> None:
    server = serve(app, host=host)
    assert is_served("127.0.0.1", server.port) is v4
    assert is_served("::1", server.port) is v6


@needs_ipv6
def test_a_client_has_the_address_of_its_family(serve: Serve, app: App) -> None:
    server = serve(app, host="")
    for host, size in (("127.0.0.1", 2), ("[::1]", 4)):
        with connect(f"ws://{host}:{server.port}/address") as client:
            message = client.recv(TIMEOUT)
            assert client.socket.getsockname() == eval(message)
            assert len(eval(message)) == size


@needs_ipv6
def test_each_family_can_have_its_own_server_on_a_port(serve: Serve, app: App) -> None:
    first = serve(app, host="::")
    with app.start("0.0.0.0", first.port) as second:
        assert is_served("127.0.0.1", second.port)
    assert is_served("::1", first.port)
    assert not is_served("127.0.0.1", first.port)


@needs_ipv6
@pytest.mark.parametrize("host", ["", "localhost"])
def test_it_listens_on_all_addresses_or_on_none(serve: Serve, app: App, host: str) -> None:
    taken = serve(App(), host="::1")
    with pytest.raises(OSError, match="in use"):
        app.start(host, taken.port)
    assert not is_served("127.0.0.1", taken.port)


@pytest.mark.parametrize("host", ["", "localhost"])
def test_an_unsupported_address_family_is_skipped(
    serve: Serve, app: App, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    bind = socket.socket.bind

    class Socket(socket.socket):
        def bind(self, address: object) -> None:
            if self.family != socket.AF_INET:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            bind(self, address)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Socket)
        server = serve(app, host=host)
        with pytest.raises(OSError, match="cannot listen on ::1:0: this system has none"):
            app.start("::1")
    assert is_served("127.0.0.1", server.port)


def test_a_port_that_the_system_does_not_permit_has_a_remedy(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Socket(socket.socket):
        def bind(self, _: object) -> None:
            raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", Socket)
        with pytest.raises(OSError, match=r"127.0.0.1:80: Permission denied: .* port above 1023"):
            app.start("127.0.0.1", 80)
