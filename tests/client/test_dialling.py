"""Connecting to servers: addresses, timeouts and TLS."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
import threading
from typing import Any, NoReturn

import pytest

from tests.client.conftest import Connect, Play, Resolve
from tests.client.opening import close_at_once
from tests.support.certificates import Certificates
from tests.support.scripted import Visit
from tests.support.waiting import TIMEOUT


def test_a_refused_connection(connect: Connect, play: Play) -> None:
    server = play()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(server.url())


def test_an_unknown_host(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(socket.gaierror):
        connect("ws://nowhere.invalid/")


def test_the_next_address_is_used_if_the_first_refuses(
    connect: Connect, play: Play, resolve: Resolve
) -> None:
    dead = play()
    dead.stop()
    resolve(dead.port, play(close_at_once).port)
    connect("ws://example.org/").close()


def test_the_error_of_the_last_address_is_raised(
    connect: Connect, play: Play, resolve: Resolve
) -> None:
    dead = play()
    dead.stop()
    resolve(dead.port, dead.port)
    with pytest.raises(ConnectionRefusedError):
        connect("ws://example.org/")


@pytest.mark.skipif(sys.platform != "linux", reason="another system may accept without end")
def test_a_silent_address_gets_its_share_of_the_timeout(
    connect: Connect, play: Play, resolve: Resolve
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # fills the backlog
            resolve(address[1], play(close_at_once).port)
            connect("ws://example.org/", open_timeout=4).close()
            resolve(address[1], address[1])
            with pytest.raises(TimeoutError):
                connect("ws://example.org/", open_timeout=0.2)


def test_a_system_without_one_family_of_addresses(
    connect: Connect, play: Play, resolve: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = play(close_at_once).port
    resolve(port, port)
    make, made = socket.socket, []

    def fail_first(*arguments: Any, **options: Any) -> socket.socket:
        made.append(arguments)
        if len(made) == 1:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return make(*arguments, **options)

    monkeypatch.setattr(socket, "socket", fail_first)
    connect("ws://example.org/").close()


def test_a_system_without_free_descriptors(
    connect: Connect, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise OSError(errno.EMFILE, "Too many open files")

    def script(visit: Visit) -> None:
        visit.upgrade()
        visit.expect_end()

    monkeypatch.setattr(socket, "socketpair", fail)
    with pytest.raises(OSError, match="Too many open files"):
        connect(play(script).url())


def test_an_address_of_ipv6(connect: Connect, play: Play) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        assert visit.headers["Host"] == f"[::1]:{server.port}"

    server = play(script, host="::1")
    connect(server.url()).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_connections_are_verified(
    connect: Connect, play: Play, certificates: Certificates, host: str
) -> None:
    def script(visit: Visit) -> None:
        visit.upgrade(first=visit.codec.encode("secret"))
        assert visit.headers["Host"] == f"{host}:{server.port}"
        visit.answer_close()

    server = play(script, tls=certificates.server)
    ws = connect(f"wss://{host}:{server.port}/", ssl=certificates.client)
    assert ws.receive(TIMEOUT) == "secret"


def test_the_host_header_contains_a_port_other_than_the_default_of_wss(
    connect: Connect, play: Play, resolve: Resolve, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        close_at_once(visit)
        hosts.append(visit.headers["Host"])

    hosts: list[str] = []
    server = play(script, script, tls=certificates.server)
    assert resolve(server.port) == []
    connect("wss://localhost:443/", ssl=certificates.client).close()
    connect("wss://localhost:80/", ssl=certificates.client).close()
    server.stop()
    assert hosts == ["localhost", "localhost:80"]


def test_the_largest_tls_record_is_read_completely(
    connect: Connect, play: Play, certificates: Certificates
) -> None:
    def script(visit: Visit) -> None:
        head = visit.judge().encode()
        rest = 16384 - len(head) - 4
        visit.send(head + visit.codec.encode(b"x" * rest))
        assert received.wait(TIMEOUT)
        visit.send(visit.codec.encode(b"x" * 16380))
        visit.answer_close()

    received = threading.Event()
    url = play(script, tls=certificates.server).url()
    ws = connect(url, ssl=certificates.client)
    assert len(ws.receive(TIMEOUT)) > 16000
    received.set()
    assert len(ws.receive(TIMEOUT)) == 16380


@pytest.mark.parametrize("trusted", [True, False])
def test_an_invalid_certificate(
    connect: Connect, play: Play, resolve: Resolve, certificates: Certificates, trusted: bool
) -> None:
    def script(visit: Visit) -> None:
        with pytest.raises(ssl.SSLError):
            certificates.server.wrap_socket(visit.sock, server_side=True)

    resolve(play(script).port)
    # From an unknown authority, or for another name.
    url, context = (
        ("wss://example.org/", certificates.client) if trusted else ("wss://localhost/", None)
    )
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(url, ssl=context)


def test_a_server_without_tls(connect: Connect, play: Play, certificates: Certificates) -> None:
    def script(visit: Visit) -> None:
        visit.send(b"220 smtp\r\n" * 10)
        visit.wait_for_end()

    server = play(script)
    with pytest.raises(ssl.SSLError):
        connect(f"wss://127.0.0.1:{server.port}/", ssl=certificates.client)


def test_a_server_that_disconnects_in_the_tls_handshake(
    connect: Connect, play: Play, certificates: Certificates
) -> None:
    server = play(lambda visit: visit.sock.recv(1 << 16))
    with pytest.raises(OSError, match=r"\w"):
        connect(f"wss://127.0.0.1:{server.port}/", ssl=certificates.client)
