"""Ports that are reserved."""

from __future__ import annotations

import secrets
import socket

import pytest

from wsframe.server import App
from wsframe.testing import AppServer, ReservedPort
from wsframe.testing.ports import FIRST
from wsframe.testing.requests import get


def test_a_server_listens_on_a_reserved_port_again_and_again() -> None:
    with ReservedPort() as port:
        for _ in range(2):
            with App().start("127.0.0.1", port) as server:
                assert server.port == port


def test_a_port_in_use_is_not_reserved(monkeypatch: pytest.MonkeyPatch) -> None:
    with ReservedPort() as taken:
        numbers = [taken - FIRST, secrets.randbelow(9000)]
        monkeypatch.setattr(secrets, "randbelow", lambda _: numbers.pop(0) if numbers else 9500)
        with ReservedPort() as other:
            assert other != taken


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        ReservedPort("192.0.2.1")


@pytest.mark.skipif(not socket.has_ipv6, reason="this system does not support IPv6")
def test_an_app_is_served_on_another_address() -> None:
    app = App()
    app.page("/", "hello")
    with AppServer(app, "::1") as server:
        client = server.connect(host="::1")
        client.send(get("/"))
        assert client.response().body == b"hello"
