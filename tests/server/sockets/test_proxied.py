"""Connections that begin with a PROXY header."""

from __future__ import annotations

import logging
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from logging import WARNING
from pathlib import Path
from typing import Any

import pytest

from tests.server.sockets.over_tls import context_of
from tests.server.sockets.test_proxy_header import V4, binary, inet
from tests.server.sockets.test_tls_handshake import Handshake
from tests.support.certificates import Certificates, resets_under_tls
from tests.support.clients import Client, Clients, get, upgrade
from tests.support.handlers import generator_echo
from tests.support.inspection import peers_of, wait_for_disconnects
from tests.support.log import ServerLog
from tests.support.serving import Serve, stop_within
from tests.support.waiting import TIMEOUT, wait_until
from wsframe.server import App, EventStream, Server, Settings
from wsframe.server.sockets.admission import LINGERING
from wsframe.server.timing import Timing
from wsframe.testing import ManualClock

PROXY: dict[str, Any] = {"proxy_protocol": ["127.0.0.1"], "hosts": "*"}


def line(client: str) -> bytes:
    """Return a header of version 1."""
    family = "TCP6" if ":" in client else "TCP4"
    return f"PROXY {family} {client} {client} 4711 443\r\n".encode()


def block(client: str) -> bytes:
    """Return a header of version 2, with a value that the server ignores."""
    family = 0x21 if ":" in client else 0x11
    return binary(0x21, family, inet(client, client) + b"\x20\x00\x03abc")


UNKNOWN, LOCAL = b"PROXY UNKNOWN\r\n", binary(0x20, 0x00, b"")
HEADERS: dict[str, tuple[bytes, str]] = {
    "version 1": (line("203.0.113.7"), "203.0.113.7"),
    "version 1, IPv6": (line("2001:DB8::7"), "2001:db8::7"),
    "version 1, unknown": (UNKNOWN, "127.0.0.1"),
    "version 2": (block("203.0.113.7"), "203.0.113.7"),
    "version 2, IPv6": (block("2001:db8::7"), "2001:db8::7"),
    "version 2, of the proxy itself": (LOCAL, "127.0.0.1"),
    "version 2, 4 KiB": (binary(0x21, 0x11, V4 + bytes(4068)), "203.0.113.7"),
}


def identifying_app(timing: Timing | None = None) -> App:
    """An app that sends clients their address."""
    app = App(timing=timing)

    @app.sse("/who")
    def who(stream: EventStream) -> None:
        request = stream.request
        stream.send(f"{request.client} {request.scheme}")
        stream.close()

    app.websocket("/echo")(generator_echo)
    app.page("/", "hello")
    return app


@pytest.fixture
def server(serve: Serve) -> Server:
    return serve(identifying_app(), **PROXY)


def identity(client: Client) -> str:
    """Return what the server has sent about a client that has asked for it."""
    answer = client.read_to_end()
    client.close()
    return answer.partition(b"data: ")[2].decode().strip()


def identity_of(client: Client, header: bytes, *headers: tuple[str, str]) -> str:
    """Ask with a header and a request in one segment."""
    client.send(header + get("/who", *headers))
    return identity(client)


@pytest.mark.parametrize("name", HEADERS)
def test_the_client_is_the_one_in_the_header(server: Server, clients: Clients, name: str) -> None:
    header, expected = HEADERS[name]
    assert identity_of(clients.connect(server), header) == f"{expected} http"
    apart = clients.connect(server)
    apart.send(header)
    wait_until(lambda: len(header) in [peer.bytes_in for peer in peers_of(server)], "it is read")
    apart.send(get("/who"))
    assert identity(apart) == f"{expected} http"
    if len(header) < 1000:
        bytewise = clients.connect(server)
        bytewise.send_bytewise(header + get("/who"))
        assert identity(bytewise) == f"{expected} http"


def test_frames_may_follow_in_the_same_segment(server: Server, clients: Clients) -> None:
    client = clients.connect(server)
    client.send(line("203.0.113.7") + upgrade("/echo") + b"\x81\x80\0\0\0\0")
    assert client.read_until(b"\x81\x00").startswith(b"HTTP/1.1 101 ")


def test_the_address_of_the_request_has_the_port_of_the_client(
    server: Server, clients: Clients
) -> None:
    client = clients.connect(server)
    client.send(line("203.0.113.7") + upgrade("/echo"))
    client.read_until(b"\r\n\r\n")
    (peer,) = peers_of(server)
    assert peer.address == ("203.0.113.7", 4711)
    client.close()


@pytest.mark.parametrize("loops", [1, 3])
def test_many_connections_with_headers_are_served(
    serve: Serve, clients: Clients, loops: int
) -> None:
    server = serve(identifying_app(), loops=loops, **PROXY)
    for number in range(10):
        header = (line, block)[number % 2](f"203.0.113.{number}")
        assert identity_of(clients.connect(server), header) == f"203.0.113.{number} http"


@pytest.mark.parametrize("header", [line("203.0.113.7"), block("203.0.113.7")], ids=["1", "2"])
def test_connections_of_other_addresses_have_no_header(
    serve: Serve, clients: Clients, log: ServerLog, header: bytes
) -> None:
    server = serve(identifying_app(), proxy_protocol=["10.0.0.0/8", "unix"])
    assert identity_of(clients.connect(server), b"") == "127.0.0.1 http"
    client = clients.connect(server)
    client.send(header + get("/who"))
    assert client.answer().status == 400
    message = log.expect("is refused with 400: the request is malformed", WARNING).getMessage()
    assert "add its address to the setting proxy_protocol (--proxy-protocol)" in message


@pytest.mark.skipif(sys.platform == "win32", reason="no unix sockets")
def test_clients_of_a_unix_socket_may_begin_with_a_header(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with identifying_app().start(unix="s", proxy_protocol=["unix"], loops=1):
        for header, expected in ((block("203.0.113.7"), "203.0.113.7"), (LOCAL, "unix")):
            assert identity_of(Client(0, unix="s"), header) == f"{expected} http"


# With other settings ------------------------------------------------------------------------------

FORWARDED = ("X-Forwarded-For", "198.51.100.1")


@pytest.mark.parametrize(
    ("trusted", "header", "expected"),
    [
        ([], line("203.0.113.7"), "203.0.113.7"),
        # The proxy that sends the PROXY header has not written the request.
        (["127.0.0.1"], line("203.0.113.7"), "203.0.113.7"),
        (["203.0.113.7"], line("203.0.113.7"), "198.51.100.1"),
        (["203.0.113.0/24"], block("203.0.113.7"), "198.51.100.1"),
        # The connection is that of the proxy itself.
        (["127.0.0.1"], LOCAL, "198.51.100.1"),
        ([], LOCAL, "127.0.0.1"),
    ],
)
def test_forwarded_headers_are_trusted_by_the_address_in_the_header(
    serve: Serve, clients: Clients, trusted: list[str], header: bytes, expected: str
) -> None:
    server = serve(identifying_app(), trusted_proxies=trusted, **PROXY)
    assert identity_of(clients.connect(server), header, FORWARDED) == f"{expected} http"


@pytest.mark.parametrize(
    ("header", "network"), [(line("203.0.113.7"), "203.0.113.7"), (UNKNOWN, None), (LOCAL, None)]
)
def test_threads_are_shared_by_the_address_in_the_header(
    server: Server, clients: Clients, header: bytes, network: str | None
) -> None:
    client = clients.connect(server)
    client.send(header + upgrade("/echo"))
    client.read_until(b"\r\n\r\n")
    assert [peer.network for peer in peers_of(server)] == [network]


def test_the_request_log_has_the_address_in_the_header(
    server: Server, clients: Clients, caplog: Any
) -> None:
    with caplog.at_level(logging.INFO, "wsframe.access"):
        for request in (get("/"), b"nonsense\r\n\r\n"):
            client = clients.connect(server)
            client.send(line("203.0.113.7") + request)
            client.answer()
        server.stop()
    records = [record for record in caplog.records if record.name == "wsframe.access"]
    assert [record.client for record in records] == ["203.0.113.7"] * 2


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (["nonsense"], ValueError),
        ("127.0.0.1", TypeError),
        ([1], TypeError),
    ],
)
def test_invalid_addresses_are_refused_at_the_start(value: Any, error: type[Exception]) -> None:
    text = "proxy_protocol: 'nonsense' " if error is ValueError else "proxy_protocol must be"
    with pytest.raises(error, match=text):
        Settings(proxy_protocol=value)


# Invalid headers ----------------------------------------------------------------------------------

INVALID: dict[str, tuple[bytes, str]] = {
    "a request": (get("/"), "has sent no PROXY header. Enable the PROXY protocol in the proxy"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "or remove the address from the set"),
    "a malformed line": (b"PROXY TCP4 1 2 3 4\r\n", "header is invalid: an address is malformed"),
    "a long line": (b"PROXY " + b"x" * 200, "header is invalid: the line exceeds 107 bytes"),
    "64 KiB": (binary(0x21, 0x11, V4, 65535), "the header's size of 65551 bytes exceeds 4096"),
    "version 3": (binary(0x31, 0x11, V4), "the version and command 0x31 are unknown"),
}


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
def test_a_connection_with_an_invalid_header_is_closed_without_an_answer(
    serve: Serve,
    clients: Clients,
    certificates: Certificates,
    log: ServerLog,
    name: str,
    secured: bool,
) -> None:
    data, reason = INVALID[name]
    context = certificates.server if secured else None
    server = serve(identifying_app(), ssl_context=context, **PROXY)
    client = clients.connect(server)
    client.send(data)
    assert client.read_to_end() == b""
    message = log.expect("disconnecting 127.0.0.1: ", WARNING).getMessage()
    assert reason in message
    stats = server.stats()
    assert (stats.refused, stats.refused_for) == ({400: 1}, {"proxy": 1})
    wait_for_disconnects(server)


def test_a_flood_of_invalid_headers_is_counted_and_logged_once_per_second(
    server: Server, clients: Clients, log: ServerLog
) -> None:
    for _ in range(50):
        client = clients.connect(server)
        client.send(b"nonsense")
        assert client.read_to_end() == b""
    assert server.stats().refused_for == {"proxy": 50}
    assert 1 <= len(log.records) < 25


@pytest.mark.parametrize("header", [line("203.0.113.7"), block("203.0.113.7")], ids=["1", "2"])
def test_a_client_may_disconnect_within_the_header(
    server: Server, clients: Clients, log: ServerLog, header: bytes
) -> None:
    for leave in (Client.close, Client.reset, Client.half_close):
        for size in range(0, len(header), 7):
            client = clients.connect(server)
            client.send(header[:size])
            leave(client)
            wait_for_disconnects(server)
    assert log.records == []
    assert identity_of(clients.connect(server), header) == "203.0.113.7 http"


# Time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("begun", [b"", line("203.0.113.7")[:-1], line("203.0.113.7")])
def test_the_header_has_no_time_of_its_own(
    serve: Serve, clients: Clients, certificates: Certificates, begun: bytes, secured: bool
) -> None:
    clock = ManualClock()
    app = identifying_app(Timing(clock=clock))
    context = certificates.server if secured else None
    server = serve(app, handshake_timeout=4, ssl_context=context, **PROXY)
    client = clients.connect(server)
    wait_until(lambda: peers_of(server), "it is accepted")
    clock.pass_time(server, 3)
    client.send(begun)
    wait_until(lambda: [peer.bytes_in for peer in peers_of(server)] == [len(begun)], "it is read")
    clock.pass_time(server, 2)
    assert client.read_to_end() == b""


@pytest.mark.parametrize("begun", [b"", line("203.0.113.7")[:-1], line("203.0.113.7")])
def test_a_stop_does_not_wait_for_a_header(serve: Serve, clients: Clients, begun: bytes) -> None:
    server = serve(identifying_app(), **PROXY)
    client = clients.connect(server)
    client.send(begun)
    wait_until(lambda: [peer.bytes_in for peer in peers_of(server)] == [len(begun)], "it is read")
    (peer,) = peers_of(server)
    assert peer.awaiting_request
    stopping = threading.Thread(target=server.stop, kwargs={"drain": 2 * TIMEOUT})
    stopping.start()
    assert client.read_to_end() == b""
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()


# TLS ----------------------------------------------------------------------------------------------


def secure(client: Client, header: bytes, tls: ssl.SSLContext) -> Client:
    """Send a header, and shake hands."""
    client.send(header)
    client.sock = tls.wrap_socket(
        client.sock, server_hostname="127.0.0.1", suppress_ragged_eofs=False
    )
    return client


@pytest.mark.parametrize("name", HEADERS)
def test_the_header_comes_before_tls(
    serve: Serve, clients: Clients, certificates: Certificates, name: str
) -> None:
    header, expected = HEADERS[name]
    server = serve(identifying_app(), ssl_context=certificates.server, **PROXY)
    client = secure(clients.connect(server), header, certificates.client)
    client.send(get("/who"))
    assert identity(client) == f"{expected} https"


Send = Callable[[Client, bytes], None]


@pytest.mark.parametrize("send", [Client.send, Client.send_bytewise], ids=["at once", "bytewise"])
def test_the_handshake_may_follow_the_header_in_one_segment(
    serve: Serve, clients: Clients, certificates: Certificates, send: Send
) -> None:
    steps: list[str] = []

    class Recorded(ssl.SSLObject):
        def do_handshake(self) -> None:
            steps.append(threading.current_thread().name)
            super().do_handshake()

    server = serve(identifying_app(), ssl_context=context_of(certificates, Recorded), **PROXY)
    client = clients.connect(server)
    handshake = Handshake(client, certificates.client)
    header = block("203.0.113.7")
    for flight in handshake.flights():
        send(client, header + flight)
        header = b""
    assert b"data: 203.0.113.7 https\n" in handshake.ask(get("/who"))
    # The step with the signature is computed by the thread, as without a header.
    assert steps[0] == "wsframe-tls"
    assert set(steps[1:]) == {"wsframe-loop"}


def test_only_the_first_bytes_are_a_header(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(identifying_app(), ssl_context=certificates.server, **PROXY)
    client = secure(clients.connect(server), line("203.0.113.7"), certificates.client)
    client.send(line("198.51.100.1") + get("/who"))
    assert client.answer().status == 400


@resets_under_tls
def test_plain_http_after_a_header_receives_an_explanation(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    server = serve(identifying_app(), ssl_context=certificates.server, **PROXY)
    client = clients.connect(server)
    client.send(line("203.0.113.7") + get("/"))
    answer = client.answer()
    assert (answer.status, answer.body) == (400, b"this port requires TLS: use https\n")


# Limits -------------------------------------------------------------------------------------------


def waiting(clients: Clients, server: Server, header: bytes) -> Client:
    """Return a client that has sent only its header."""
    client = clients.connect(server)
    client.send(header)
    return client


def refused(client: Client) -> bool:
    """Return True if a client is answered with 503, or served."""
    client.send(get("/"))
    return client.answer().status == 503


def test_the_limit_for_one_address_applies_to_the_one_in_the_header(
    serve: Serve, clients: Clients, log: ServerLog
) -> None:
    server = serve(identifying_app(), max_handshakes_per_address=1, **PROXY)
    silent = [clients.connect(server) for _ in range(3)]  # whose address is not known
    wait_until(lambda: len(peers_of(server)) == 3, "they are accepted")
    first = waiting(clients, server, line("203.0.113.7"))
    wait_until(lambda: 45 in [peer.bytes_in for peer in peers_of(server)], "it is read")
    assert refused(waiting(clients, server, block("203.0.113.7")))
    record = log.expect("1 connections of this client's network have not sent a request", WARNING)
    assert "refusing ('203.0.113.7', 4711): " in record.getMessage()
    assert server.stats().refused_for == {"connections": 1}
    assert not refused(waiting(clients, server, line("203.0.113.8")))
    assert not refused(waiting(clients, server, UNKNOWN))
    assert not refused(first)
    assert not refused(waiting(clients, server, line("203.0.113.7")))
    for client in silent:
        assert identity_of(client, line("203.0.113.9")) == "203.0.113.9 http"


def test_a_refused_connection_does_not_occupy_the_server(serve: Serve, clients: Clients) -> None:
    server = serve(
        identifying_app(), max_handshakes_per_address=1, max_connections=LINGERING + 3, **PROXY
    )
    first = waiting(clients, server, line("203.0.113.7"))
    wait_until(lambda: 45 in [peer.bytes_in for peer in peers_of(server)], "it is read")
    crowd = [waiting(clients, server, line("203.0.113.7")) for _ in range(3 * LINGERING)]
    for client in crowd:
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 503 ")
    wait_for_disconnects(server, 1 + LINGERING)  # they stay until they have read the answer
    assert server.capacity()[0] == 1  # and do not count
    assert not refused(waiting(clients, server, line("203.0.113.8")))
    for client in crowd:
        client.close()
    wait_for_disconnects(server, 1)
    assert not refused(first)
    wait_for_disconnects(server)
    assert server.capacity()[0] == 0


def test_a_refused_connection_with_tls_is_closed_before_the_handshake(
    serve: Serve, clients: Clients, certificates: Certificates
) -> None:
    context = certificates.server
    server = serve(identifying_app(), max_handshakes_per_address=1, ssl_context=context, **PROXY)
    first = secure(clients.connect(server), line("203.0.113.7"), certificates.client)
    assert waiting(clients, server, line("203.0.113.7")).read_to_end() == b""
    first.send(get("/who"))
    assert identity(first) == "203.0.113.7 https"
    wait_for_disconnects(server)
    assert server.capacity()[0] == 0


def test_a_full_server_refuses_before_the_header(serve: Serve, clients: Clients) -> None:
    server = serve(identifying_app(), max_connections=1, **PROXY)
    first = waiting(clients, server, line("203.0.113.7"))
    wait_until(lambda: peers_of(server), "it is accepted")
    assert clients.connect(server).answer().status == 503
    assert not refused(first)


def test_an_adopted_connection_may_begin_with_a_header(server: Server, clients: Clients) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = clients.keep(Client(listener.getsockname()[1]))
        server.adopt(*listener.accept())
    assert identity_of(client, line("203.0.113.7")) == "203.0.113.7 http"
    stop_within(server, TIMEOUT)
